package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"regexp"
	"sort"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	admissionv1beta1 "k8s.io/api/admission/v1beta1"
	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	apidiscoveryv2beta1 "k8s.io/api/apidiscovery/v2beta1"
	imagepolicyv1alpha1 "k8s.io/api/imagepolicy/v1alpha1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsv1beta1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1beta1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	apiregistrationv1beta1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1beta1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	"sigs.k8s.io/randfill"
	"sigs.k8s.io/yaml"
)

// misprinted is what upstream's YAML does not keep (U+0085, the key "<<") or escapes without need (all behind U+FEFF).
var misprinted = regexp.MustCompile("\u0085|\ufeff|\"<<\":")

// randomCases writes count objects of every kind in turn, each with random values in random fields, as upstream writes them: a line of
// `apiVersion`, kind, protobuf as a client may send it and as storage has it (base64), JSON and, of every eighth, YAML (as a JSON string), with tabs between.
func randomCases(r *rand.Rand, count int, out io.Writer) {
	all := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		scheme.AddToScheme, apiextensionsv1.AddToScheme, apiextensionsv1beta1.AddToScheme, apiregistrationv1.AddToScheme, apiregistrationv1beta1.AddToScheme,
		admissionv1.AddToScheme, admissionv1beta1.AddToScheme, apidiscoveryv2.AddToScheme, apidiscoveryv2beta1.AddToScheme, imagepolicyv1alpha1.AddToScheme,
		metricsv1beta1.AddToScheme,
	} {
		check(add(all))
	}
	kinds := objectKinds(all)
	serializer := protobuf.NewSerializer(all, all)
	lines := bufio.NewWriterSize(out, 1<<20)
	for i := range count {
		gvk := kinds[i%len(kinds)]
		made, err := all.New(gvk)
		check(err)
		filler(r).Fill(made)
		made.GetObjectKind().SetGroupVersionKind(gvk)
		sent := encoded(serializer, made)
		// As it comes back from storage, where empty lists are none.
		back, _, err := serializer.Decode(sent, nil, nil)
		check(err)
		text := asJSON(back)
		// What JSON leaves out, protobuf may still say: no bytes at all, or both sides of what is one or the other.
		read, err := all.New(gvk)
		check(err)
		check(json.Unmarshal(text, read))
		wire := encoded(serializer, read)
		printed := []byte{}
		if r.Intn(8) == 0 && !misprinted.Match(text) {
			// It says itself that it cannot print U+007F.
			if document, err := yaml.JSONToYAML(text); err == nil {
				printed, err = json.Marshal(string(document))
				check(err)
			}
		}
		apiVersion, kind := gvk.ToAPIVersionAndKind()
		base64 := base64.StdEncoding.EncodeToString
		_, err = fmt.Fprintf(lines, "%s\t%s\t%s\t%s\t%s\t%s\n", apiVersion, kind, base64(sent), base64(wire), text, printed)
		check(err)
	}
	check(lines.Flush())
}

func encoded(serializer runtime.Serializer, o runtime.Object) []byte {
	var b bytes.Buffer
	check(serializer.Encode(o, &b))
	return b.Bytes()
}

// objectKinds are the kinds of a group itself: neither lists nor what every group has.
func objectKinds(of *runtime.Scheme) []schema.GroupVersionKind {
	var kinds []schema.GroupVersionKind
	for gvk, t := range of.AllKnownTypes() {
		common := strings.Contains(t.PkgPath(), "apimachinery/")
		if gvk.Version != runtime.APIVersionInternal && !common && !strings.HasSuffix(gvk.Kind, "List") {
			kinds = append(kinds, gvk)
		}
	}
	sort.Slice(kinds, func(a, b int) bool { return kinds[a].String() < kinds[b].String() })
	return kinds
}

// filler fills objects more or less sparsely.
func filler(r *rand.Rand) *randfill.Filler {
	custom := []any{
		func(*runtime.TypeMeta, randfill.Continue) {},
		func(*metav1.TypeMeta, randfill.Continue) {},
		func(s *string, _ randfill.Continue) { *s = randomText(r) },
		func(q *resource.Quantity, _ randfill.Continue) { *q = randomQuantity(r) },
		func(raw *runtime.RawExtension, _ randfill.Continue) { raw.Raw = randomJSON(r, object{}) },
		func(raw *apiextensionsv1.JSON, _ randfill.Continue) { raw.Raw = randomJSON(r, randomValue(r, 2)) },
		func(raw *apiextensionsv1beta1.JSON, _ randfill.Continue) { raw.Raw = randomJSON(r, randomValue(r, 2)) },
		func(fields *metav1.FieldsV1, _ randfill.Continue) { fields.Raw = randomJSON(r, object{}) },
		func(b *[]byte, _ randfill.Continue) { *b = []byte(randomText(r)) },
	}
	// Schemas hold schemas.
	return randfill.New().RandSource(r).NilChance(0.3+0.6*r.Float64()).NumElements(0, 3).MaxDepth(9 + r.Intn(4)).Funcs(custom...)
}

// randomJSON is compact, as everything that was read once.
func randomJSON(r *rand.Rand, like any) []byte {
	if _, isObject := like.(object); isObject {
		o := object{}
		for range r.Intn(4) {
			o[randomText(r)] = randomValue(r, 3)
		}
		like = o
	}
	return asJSON(like)
}

// asJSON escapes nothing for HTML's sake: what is raw is kept as it came.
func asJSON(v any) []byte {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	check(encoder.Encode(v))
	return bytes.TrimSpace(b.Bytes())
}

func randomValue(r *rand.Rand, depth int) any {
	switch n := r.Intn(9); {
	case n == 0 && depth > 0:
		return object{randomText(r): randomValue(r, depth-1), "a": randomValue(r, depth-1)}
	case n == 1 && depth > 0:
		return []any{randomValue(r, depth-1), randomValue(r, depth-1)}
	case n == 2:
		return nil
	case n == 3:
		return r.Intn(2) == 0
	case n == 4:
		return r.Int63() - r.Int63()
	case n == 5:
		return float64(r.Intn(2000)-1000) / 8
	default:
		return randomText(r)
	}
}

// words are what readers of YAML, JSON and numbers may take for something else.
var words = []string{
	"", "a", "name", "yes", "No", "on", "~", "null", "true", "False", "1", "-1", "007", "0x1F", "0b1", "1_000", "1e3", ".5", "1.", ".inf", "-.INF", ".nan", "12:30",
	"2026-11-22", "2026-11-22T10:00:00Z", "- a", "a: b", "a:b", "a #b", "#", "&a", "*a", "!t", "%", "@", "`", "|", ">", "[", "]", "{", "}", ",", "?", "? a", ":", "-", "--- a",
	"---", "...", "<<", "=", "'", "\"", "it's", "\\", "\t", "\n", "\r", "\r\n", "\x00", "\x07", "\x1b[0m", "\x7f", "\u0085", "\u00a0", "é", "e\u0301", "日本", "😀", "\ufeff", "\ufffd",
	"<a href='b'>&amp;", " ", "  ", " a", "a ", "a\n", "a\n\nb\n", "\na", " a\n  b\n", "a\tb", "0o17", "0777", "+1", "1e", "0.1", "1Mi", "100m", "f:name", "example.com/v1",
	"a quite long text with blanks, which is folded where a line of eighty columns is full, and then goes on",
}

func randomText(r *rand.Rand) string {
	var b strings.Builder
	for range 1 + r.Intn(3)*r.Intn(2) {
		b.WriteString(words[r.Intn(len(words))])
	}
	return b.String()
}

func randomQuantity(r *rand.Rand) resource.Quantity {
	suffixes := []string{"", "", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "e3", "E-3", "e6"}
	number := fmt.Sprint(r.Intn(1 << uint(r.Intn(31))))
	if r.Intn(3) == 0 {
		number += "." + fmt.Sprint(r.Intn(10000))
	}
	return resource.MustParse([]string{"", "", "", "-", "+"}[r.Intn(5)] + number + suffixes[r.Intn(len(suffixes))])
}
