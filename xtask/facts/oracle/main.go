// Command oracle makes random cases from upstream's golden objects, runs upstream's own code on them, and prints case and result, one JSON a line.
// tests/differential.rs in crates/api/schema holds our engine against it.
//
//	go run ./oracle patch|strict|apply|yaml SEED COUNT TESTDATA_DIR KUBERNETES_MODULE_DIR
//	go run ./oracle random SEED COUNT
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/kube-openapi/pkg/validation/spec"
	kjson "sigs.k8s.io/json"
)

type object = map[string]any

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "oracle:", err)
		os.Exit(1)
	}
}

func main() {
	seed, err := strconv.ParseInt(os.Args[2], 10, 64)
	check(err)
	count, err := strconv.Atoi(os.Args[3])
	check(err)
	r := rand.New(rand.NewSource(seed))
	if os.Args[1] == "random" {
		randomCases(r, count, os.Stdout)
		return
	}
	files, err := filepath.Glob(filepath.Join(os.Args[4], "*.json"))
	check(err)
	var goldens []object
	for _, file := range files {
		if base := filepath.Base(file); strings.HasPrefix(base, "auth") || strings.Contains(base, "Review") || strings.HasSuffix(base, "Options.json") ||
			strings.HasSuffix(base, ".Status.json") || strings.Contains(base, "PodStatusResult") || strings.Contains(base, "RangeAllocation") {
			continue
		}
		data, err := os.ReadFile(file)
		check(err)
		var o object
		check(json.Unmarshal(data, &o))
		if gvk := gvkOf(o); scheme.Scheme.Recognizes(gvk) && o["metadata"] != nil && !strings.Contains(gvk.Version, "alpha") && !strings.Contains(gvk.Version, "beta") {
			goldens = append(goldens, o)
		}
	}
	out := json.NewEncoder(os.Stdout)
	var converter managedfields.TypeConverter
	if os.Args[1] == "apply" {
		converter = typeConverter(os.Args[5])
	}
	for range count {
		golden := goldens[r.Intn(len(goldens))]
		if os.Args[1] == "patch" {
			check(out.Encode(patchCase(r, golden)))
		} else if os.Args[1] == "yaml" {
			check(out.Encode(yamlCase(r)))
		} else if os.Args[1] == "strict" {
			check(out.Encode(strictCase(r, golden)))
		} else {
			check(out.Encode(applyCase(r, golden, converter)))
		}
	}
}

func gvkOf(o object) schema.GroupVersionKind {
	kind, _ := o["kind"].(string)
	apiVersion, _ := o["apiVersion"].(string)
	return schema.FromAPIVersionAndKind(apiVersion, kind)
}

// vary makes another object of the same type: fields left out, lists longer or shorter, values changed.
func vary(r *rand.Rand, v any, drop float64) any {
	switch v := v.(type) {
	case object:
		out := object{}
		for _, k := range sorted(v) {
			if k == "fieldsV1" || k == "managedFields" || (!keys[k] && r.Float64() < drop) {
				continue
			}
			if strings.HasSuffix(k, "Key") {
				for i := range r.Intn(3) {
					out[k+strconv.Itoa(i)] = vary(r, v[k], drop)
				}
				continue
			}
			out[k] = vary(r, v[k], drop)
		}
		return out
	case []any:
		out := []any{}
		for range r.Intn(4) {
			if len(v) == 0 {
				break
			}
			item := vary(r, v[0], drop)
			o, isObject := item.(object)
			for k := range keys {
				// Keys differ, mostly.
				if text, ok := o[k].(string); ok && strings.Contains(text, "Value") && !strings.Contains(fmt.Sprint(out), text) {
					continue
				} else if ok && strings.Contains(text, "Value") {
					o[k] = text + strconv.Itoa(len(out))
				}
			}
			if isObject || !slices.Contains(out, item) {
				out = append(out, item)
			}
		}
		return out
	case string:
		if strings.HasSuffix(v, "Value") {
			return v + strconv.Itoa(r.Intn(3))
		}
	case float64:
		return float64(int64(v)%100 + int64(r.Intn(2)))
	case bool:
		return r.Intn(2) == 0
	}
	return v
}

// keys tell items of lists apart, mostly: they are rarely left out.
var keys = map[string]bool{
	"apiVersion": true, "kind": true, "name": true, "type": true, "ip": true, "mountPath": true, "containerPort": true, "port": true, "key": true, "uid": true,
	"devicePath": true, "topologyKey": true, "protocol": true, "metadata": true, "driver": true, "device": true, "pool": true, "podIP": true,
}

func sorted(o object) []string {
	keys := make([]string, 0, len(o))
	for k := range o {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

func copyOf(v any) any {
	data, err := json.Marshal(v)
	check(err)
	var out any
	check(json.Unmarshal(data, &out))
	return out
}

// canonical passes an object through its Go type.
func canonical(o object) (runtime.Object, object, error) {
	typed, err := scheme.Scheme.New(gvkOf(o))
	check(err)
	data, err := json.Marshal(o)
	check(err)
	if err := json.Unmarshal(data, typed); err != nil {
		return nil, nil, err
	}
	typed = stored(typed)
	return typed, asObject(typed), nil
}

// stored is the object as it comes back from storage, where empty lists are none.
func stored(o runtime.Object) runtime.Object {
	var buffer bytes.Buffer
	serializer := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)
	check(serializer.Encode(o, &buffer))
	back, _, err := serializer.Decode(buffer.Bytes(), nil, nil)
	check(err)
	return back
}

func asObject(typed runtime.Object) object {
	data, err := json.Marshal(typed)
	check(err)
	var out object
	check(json.Unmarshal(data, &out))
	return out
}

// spoil writes the tree as JSON with something wrong in it, about once in fifty values.
func spoil(r *rand.Rand, v any, b *strings.Builder) {
	if r.Intn(60) == 0 {
		b.WriteString([]string{`"text"`, "7", "1.5", "true", "null", "[]", "{}", `["a"]`, `{"a":1}`, "99999999999", "-1"}[r.Intn(11)])
		return
	}
	switch v := v.(type) {
	case object:
		b.WriteString("{")
		first := true
		field := func(name string, value any) {
			if !first {
				b.WriteString(",")
			}
			first = false
			fmt.Fprintf(b, "%q:", name)
			spoil(r, value, b)
		}
		for _, k := range sorted(v) {
			field(k, v[k])
			if r.Intn(60) == 0 {
				field(k, v[k])
			}
			if r.Intn(60) == 0 {
				field([]string{"bogus", strings.ToUpper(k), k + "x"}[r.Intn(3)], v[k])
			}
		}
		b.WriteString("}")
	case []any:
		b.WriteString("[")
		for i, item := range v {
			if i > 0 {
				b.WriteString(",")
			}
			spoil(r, item, b)
		}
		b.WriteString("]")
	default:
		data, err := json.Marshal(v)
		check(err)
		b.Write(data)
	}
}

// strictCase is an object with faults, and what upstream says about them.
func strictCase(r *rand.Rand, golden object) object {
	var b strings.Builder
	spoil(r, vary(r, golden, 0.5*r.Float64()), &b)
	text := b.String()
	switch r.Intn(20) {
	case 0:
		text = text[:r.Intn(len(text))]
	case 1:
		at := r.Intn(len(text))
		text = text[:at] + string("x}]{[:,\"'\n1-"[r.Intn(12)]) + text[at+1:]
	}
	result := object{"apiVersion": golden["apiVersion"], "kind": golden["kind"], "text": text}
	typed, err := scheme.Scheme.New(gvkOf(golden))
	check(err)
	problems, err := kjson.UnmarshalStrict([]byte(text), typed)
	if err != nil {
		result["error"] = err.Error()
		return result
	}
	words := []string{}
	for _, p := range problems {
		words = append(words, p.Error())
	}
	result["problems"] = words
	return result
}

// direct puts directives into a patch.
func direct(r *rand.Rand, v any) any {
	switch v := v.(type) {
	case object:
		// Embedded objects of no type keep what looks like a directive.
		if v["apiVersion"] == "example.com/v1" {
			return v
		}
		out := object{}
		for _, k := range sorted(v) {
			if r.Float64() < 0.07 {
				out[k] = nil
				continue
			}
			out[k] = direct(r, v[k])
			if list, ok := v[k].([]any); ok && len(list) > 0 && !strings.Contains(k, "Key") && !strings.Contains(fmt.Sprint(out[k]), "$patch") && r.Float64() < 0.2 {
				order(r, out, k, list)
			}
		}
		if r.Float64() < 0.02 {
			out["$patch"] = []string{"replace", "delete"}[r.Intn(2)]
		}
		// In a new map with keys of users, upstream takes the directive for a key.
		if r.Float64() < 0.03 && ofFields(v) {
			keys := []any{}
			for _, k := range sorted(v) {
				keys = append(keys, k)
			}
			out["$retainKeys"] = keys
		}
		return out
	case []any:
		out := []any{}
		for _, item := range v {
			item = direct(r, item)
			if o, ok := item.(object); ok && r.Float64() < 0.15 {
				o["$patch"] = []string{"replace", "delete"}[r.Intn(2)]
			}
			out = append(out, item)
		}
		return out
	}
	return v
}

// ofFields is whether a map has fields of a type for its keys.
func ofFields(o object) bool {
	for k := range o {
		if strings.Contains(k, "Key") {
			return false
		}
	}
	return len(o) > 0
}

func order(r *rand.Rand, into object, key string, list []any) {
	if _, isObject := list[0].(object); !isObject && r.Intn(2) == 0 {
		// Beside each other, which of the two goes first is left to Go's order of maps.
		delete(into, key)
		into["$deleteFromPrimitiveList/"+key] = []any{list[0]}
		return
	}
	elements := []any{}
	for _, item := range list {
		if o, ok := item.(object); ok {
			item = object{}
			for k := range keys {
				if value, ok := o[k]; ok {
					item.(object)[k] = value
				}
			}
		}
		elements = append(elements, item)
	}
	if r.Intn(3) == 0 {
		r.Shuffle(len(elements), func(i, j int) { elements[i], elements[j] = elements[j], elements[i] })
	}
	into["$setElementOrder/"+key] = elements
}

func patchCase(r *rand.Rand, golden object) (result object) {
	// Upstream's code panics on some orders of lists that it does not merge.
	defer func() {
		if p := recover(); p != nil {
			result = object{"skip": fmt.Sprint(p)}
		}
	}()
	raw := vary(r, golden, 0.8*r.Float64()).(object)
	stored, original, err := canonical(raw)
	if err != nil {
		return object{"skip": err.Error()}
	}
	var wire bytes.Buffer
	check(protobuf.NewSerializer(scheme.Scheme, scheme.Scheme).Encode(stored, &wire))
	patch := direct(r, vary(r, golden, 0.5)).(object)
	delete(patch, "status")
	typed, err := scheme.Scheme.New(gvkOf(golden))
	check(err)
	result = object{"apiVersion": golden["apiVersion"], "kind": golden["kind"], "raw": raw, "original": original, "wire": wire.Bytes(), "patch": patch}
	merged, err := strategicpatch.StrategicMergeMapPatch(copyOf(original).(object), copyOf(patch).(object), typed)
	if err != nil {
		result["error"] = err.Error()
	} else {
		result["result"] = merged
	}
	return result
}

func typeConverter(module string) managedfields.TypeConverter {
	files, err := filepath.Glob(filepath.Join(module, "api/openapi-spec/v3/*.json"))
	check(err)
	all := map[string]*spec.Schema{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		check(err)
		var document struct {
			Components struct {
				Schemas map[string]*spec.Schema `json:"schemas"`
			} `json:"components"`
		}
		check(json.Unmarshal(data, &document))
		for name, s := range document.Components.Schemas {
			all[name] = s
		}
	}
	converter, err := managedfields.NewTypeConverter(all, false)
	check(err)
	return converter
}

func applyCase(r *rand.Rand, golden object, converter managedfields.TypeConverter) object {
	gvk := gvkOf(golden)
	manager := func(subresource string) *managedfields.FieldManager {
		fm, err := managedfields.NewDefaultFieldManager(converter, scheme.Scheme, scheme.Scheme, scheme.Scheme, gvk, gvk.GroupVersion(), subresource, nil)
		check(err)
		return fm
	}
	empty, err := scheme.Scheme.New(gvk)
	check(err)
	empty.GetObjectKind().SetGroupVersionKind(gvk)
	live, steps := empty, []any{}
	for i := range 2 + r.Intn(5) {
		name := []string{"a", "b", "kubectl"}[r.Intn(3)]
		step := object{"manager": name}
		next := vary(r, golden, 0.3+0.4*r.Float64()).(object)
		next["apiVersion"], next["kind"] = golden["apiVersion"], golden["kind"]
		meta, _ := next["metadata"].(object)
		if meta == nil {
			meta = object{}
			next["metadata"] = meta
		}
		delete(meta, "managedFields")
		meta["name"] = "x"
		if i > 0 {
			meta["uid"] = "u"
		} else {
			delete(meta, "uid")
		}
		if r.Intn(3) > 0 {
			force := r.Intn(2) == 0
			delete(meta, "uid")
			step["apply"], step["force"] = copyOf(next), force
			applied, err := manager("").Apply(live, &unstructured.Unstructured{Object: copyOf(next).(object)}, name, force)
			if err != nil {
				step["error"] = err.Error()
				steps = append(steps, step)
				continue
			}
			live = applied
		} else {
			typed, plain, err := canonical(next)
			if err != nil {
				continue
			}
			step["update"] = plain
			live = manager("").UpdateNoErrors(live, typed, name)
		}
		live.GetObjectKind().SetGroupVersionKind(gvk)
		live = stored(live)
		step["result"] = asObject(live)
		steps = append(steps, step)
	}
	return object{"apiVersion": golden["apiVersion"], "kind": golden["kind"], "steps": steps}
}
