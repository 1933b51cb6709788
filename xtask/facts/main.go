// Command facts writes the table of facts that tiphys-schema embeds, from Kubernetes' published Go modules: struct tags by reflection,
// the OpenAPI and discovery documents from the k8s.io/kubernetes module in the module cache.
//
// It writes names, numbers and flags only. Descriptions and other prose stay where they are.
//
//	go run . KUBERNETES_MODULE_DIR >facts.txt
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"sort"
	"strconv"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	admissionv1beta1 "k8s.io/api/admission/v1beta1"
	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	apidiscoveryv2beta1 "k8s.io/api/apidiscovery/v2beta1"
	imagepolicyv1alpha1 "k8s.io/api/imagepolicy/v1alpha1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsv1beta1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1beta1 "k8s.io/apimachinery/pkg/apis/meta/v1beta1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	apiregistrationv1beta1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1beta1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: facts KUBERNETES_MODULE_DIR")
		os.Exit(2)
	}
	out := bufio.NewWriter(os.Stdout)
	g := &generator{out: out, open: readOpenAPI(os.Args[1]), deletes: deleteAnswers(os.Args[1]), seen: map[reflect.Type]bool{}, owners: map[reflect.Type]string{}}
	g.kinds(buildScheme())
	g.types()
	g.discovery(os.Args[1])
	g.metrics()
	check(out.Flush())
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "facts:", err)
		os.Exit(1)
	}
}

func buildScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		scheme.AddToScheme, apiextensionsv1.AddToScheme, apiextensionsv1beta1.AddToScheme,
		apiregistrationv1.AddToScheme, apiregistrationv1beta1.AddToScheme,
		admissionv1.AddToScheme, admissionv1beta1.AddToScheme, apidiscoveryv2.AddToScheme, apidiscoveryv2beta1.AddToScheme,
		imagepolicyv1alpha1.AddToScheme, metav1.AddMetaToScheme, metav1beta1.AddMetaToScheme, metricsv1beta1.AddToScheme,
	} {
		check(add(s))
	}
	return s
}

type generator struct {
	out  *bufio.Writer
	open openAPI
	// deletes is what DELETE answers with, by path.
	deletes map[string]string
	seen    map[reflect.Type]bool
	// owners are the types that inline a type.
	owners map[reflect.Type]string
	queue  []reflect.Type
}

// universal are the kinds that every group version registers; they are written once.
var universal = map[string]bool{
	"WatchEvent": true, "ListOptions": true, "GetOptions": true, "DeleteOptions": true, "CreateOptions": true, "UpdateOptions": true, "PatchOptions": true,
}

const metaPackage = "k8s.io/apimachinery/pkg/apis/meta/v1"

func (g *generator) kinds(s *runtime.Scheme) {
	known := s.AllKnownTypes()
	gvks := make([]schema.GroupVersionKind, 0, len(known))
	for gvk := range known {
		if gvk.Version != runtime.APIVersionInternal {
			gvks = append(gvks, gvk)
		}
	}
	sort.Slice(gvks, func(i, j int) bool { return gvks[i].String() < gvks[j].String() })
	for _, gvk := range gvks {
		t := known[gvk]
		if universal[gvk.Kind] && t.PkgPath() == metaPackage && gvk.GroupVersion().String() != "v1" {
			continue
		}
		mark := "k"
		if universal[gvk.Kind] && t.PkgPath() == metaPackage {
			mark = "u"
		}
		g.line(mark, gvk.GroupVersion().String(), gvk.Kind, typeName(t))
		g.want(t)
	}
	g.want(reflect.TypeOf(metav1.Patch{}))
	g.want(reflect.TypeOf(runtime.RawExtension{}))
}

func (g *generator) line(parts ...string) {
	_, err := fmt.Fprintln(g.out, strings.Join(parts, "\t"))
	check(err)
}

func (g *generator) want(t reflect.Type) {
	if !g.seen[t] {
		g.seen[t] = true
		g.queue = append(g.queue, t)
	}
}

func (g *generator) types() {
	var done []reflect.Type
	blocks := map[reflect.Type][][]string{}
	for len(g.queue) > 0 {
		t := g.queue[0]
		g.queue = g.queue[1:]
		done = append(done, t)
		blocks[t] = g.fields(t)
	}
	sort.Slice(done, func(i, j int) bool { return typeName(done[i]) < typeName(done[j]) })
	for _, t := range done {
		name := typeName(t)
		attrs := append([]string{"t", name}, g.open.typeAttrs(name)...)
		g.line(attrs...)
		for _, f := range blocks[t] {
			g.line(f...)
		}
	}
}

// published is the name of the type under which OpenAPI shows the fields of t.
func (g *generator) published(t reflect.Type) string {
	if _, ok := g.open[typeName(t)]; !ok && g.owners[t] != "" {
		return g.owners[t]
	}
	return typeName(t)
}

func (g *generator) fields(t reflect.Type) [][]string {
	var lines [][]string
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() {
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		number := protoNumber(f)
		if name == "-" {
			continue
		}
		inline := f.Anonymous && name == ""
		if name == "" && !inline {
			name = f.Name
		}
		ft, pointer := f.Type, ""
		if ft.Kind() == reflect.Pointer {
			ft, pointer = ft.Elem(), "*"
		}
		shape := g.shape(ft)
		if inline && pointer != "" {
			check(fmt.Errorf("%s.%s: an inlined pointer, which the engine does not know", t, f.Name))
		}
		line := []string{"f", name, number, pointer + shape}
		if inline {
			line[1] = ""
		}
		for _, option := range strings.Split(options, ",") {
			switch option {
			case "omitempty":
				line = append(line, "o")
			case "omitzero":
				line = append(line, "z")
			case "", "inline":
			default:
				check(fmt.Errorf("%s.%s: json option %q", t, f.Name, option))
			}
		}
		if goName := ft.String(); goName != goNameOf(ft) {
			line = append(line, "g="+goName)
		}
		if v := f.Tag.Get("patchStrategy"); v != "" {
			line = append(line, "ps="+v)
		}
		if v := f.Tag.Get("patchMergeKey"); v != "" {
			line = append(line, "pk="+v)
		}
		if inline {
			// OpenAPI documents show the fields of an inlined struct on its owner alone, unless it is published itself.
			if _, known := g.owners[ft]; !known {
				g.owners[ft] = g.published(t)
			}
		} else {
			line = append(line, g.open.fieldAttrs(g.published(t), name)...)
		}
		lines = append(lines, line)
	}
	return lines
}

// protoNumber reads `protobuf:"bytes,3,opt,name=spec"`; fields without a number do not travel in protobuf.
func protoNumber(f reflect.StructField) string {
	parts := strings.Split(f.Tag.Get("protobuf"), ",")
	if len(parts) < 2 {
		return "-"
	}
	_, err := strconv.Atoi(parts[1])
	check(err)
	return parts[1]
}

var special = map[string]string{
	"io.k8s.apimachinery.pkg.apis.meta.v1.Time":                                                  "time",
	"io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime":                                             "microtime",
	"io.k8s.apimachinery.pkg.apis.meta.v1.Duration":                                              "duration",
	"io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1":                                              "fields",
	"io.k8s.apimachinery.pkg.api.resource.Quantity":                                              "quantity",
	"io.k8s.apimachinery.pkg.util.intstr.IntOrString":                                            "intstr",
	"io.k8s.apimachinery.pkg.runtime.RawExtension":                                               "raw",
	"io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON":                              "json",
	"io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool":             "orbool",
	"io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray":            "orarray",
	"io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray":      "orstrings",
	"io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1beta1.JSON":                         "json",
	"io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1beta1.JSONSchemaPropsOrBool":        "orbool",
	"io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1beta1.JSONSchemaPropsOrArray":       "orarray",
	"io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1beta1.JSONSchemaPropsOrStringArray": "orstrings",
}

type marshaler interface{ Marshal() ([]byte, error) }

var marshalerType = reflect.TypeFor[marshaler]()

// shape names how a value of the type looks on the wire; see crates/api/schema/src/facts.rs for the reader.
func (g *generator) shape(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "str"
	case reflect.Bool:
		return "bool"
	case reflect.Int32:
		return "i32"
	case reflect.Int64, reflect.Int:
		return "i64"
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return "u32"
	case reflect.Uint64:
		return "u64"
	case reflect.Float32, reflect.Float64:
		return "f64"
	case reflect.Interface:
		return "any"
	case reflect.Pointer:
		return "*" + g.shape(t.Elem())
	case reflect.Map:
		if t.Key().Kind() != reflect.String {
			check(fmt.Errorf("%s: a map with keys that are no strings", t))
		}
		return "{}" + g.shape(t.Elem())
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return "bytes"
		}
		if t.Name() != "" && t.Implements(marshalerType) {
			// A named list with a Marshal of its own is a message with `repeated items = 1`.
			return "<>" + g.shape(t.Elem())
		}
		return "[]" + g.shape(t.Elem())
	case reflect.Struct:
		name := typeName(t)
		if s := special[name]; s != "" {
			if s == "orbool" || s == "orarray" || s == "orstrings" {
				f, _ := t.FieldByName("Schema")
				g.want(f.Type.Elem())
				return s + " " + typeName(f.Type.Elem())
			}
			return s
		}
		g.want(t)
		return "@" + name
	}
	check(fmt.Errorf("%s: kind %s is not known", t, t.Kind()))
	return ""
}

// goNameOf is the Go name that the reader derives from the shape; where reflection says otherwise, the fact is written down.
func goNameOf(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return "*" + goNameOf(t.Elem())
	case reflect.Map:
		return "map[string]" + goNameOf(t.Elem())
	case reflect.Slice:
		return "[]" + goNameOf(t.Elem())
	case reflect.Struct:
		return t.String()
	case reflect.Interface:
		return "interface {}"
	}
	return t.Kind().String()
}

// typeName is the name that OpenAPI gives the type: k8s.io/api/core/v1.Pod is io.k8s.api.core.v1.Pod.
func typeName(t reflect.Type) string {
	host, path, _ := strings.Cut(t.PkgPath(), "/")
	labels := strings.Split(host, ".")
	for i, j := 0, len(labels)-1; i < j; i, j = i+1, j-1 {
		labels[i], labels[j] = labels[j], labels[i]
	}
	return strings.Join(labels, ".") + "." + strings.ReplaceAll(path, "/", ".") + "." + t.Name()
}

func compact(v any) string {
	data, err := json.Marshal(v)
	check(err)
	return string(data)
}
