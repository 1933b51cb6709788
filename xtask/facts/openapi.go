package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
)

type property struct {
	Default              any       `json:"default"`
	Items                *property `json:"items"`
	AdditionalProperties *property `json:"additionalProperties"`
	Enum                 []any     `json:"enum"`
	Format               string    `json:"format"`
	ListType             string    `json:"x-kubernetes-list-type"`
	ListMapKeys          []string  `json:"x-kubernetes-list-map-keys"`
	MapType              string    `json:"x-kubernetes-map-type"`
	Ref                  string    `json:"$ref"`
}

type definition struct {
	Properties map[string]property `json:"properties"`
	Required   []string            `json:"required"`
	MapType    string              `json:"x-kubernetes-map-type"`
	Unions     any                 `json:"x-kubernetes-unions"`
	GVKs       []gvk               `json:"x-kubernetes-group-version-kind"`
}

type gvk struct {
	Group, Version, Kind string
}

type openAPI map[string]definition

func readOpenAPI(module string) openAPI {
	files, err := filepath.Glob(filepath.Join(module, "api/openapi-spec/v3/*.json"))
	check(err)
	all := openAPI{}
	for _, file := range files {
		var document struct {
			Components struct {
				Schemas map[string]definition `json:"schemas"`
			} `json:"components"`
		}
		readJSON(file, &document)
		for name, d := range document.Components.Schemas {
			all[name] = d
		}
	}
	all.addMetrics()
	return all
}

// addMetrics says of the types of metrics.k8s.io what metrics-server publishes of them: kube-apiserver's documents, which are read above, do
// not have them.
func (o openAPI) addMetrics() {
	empty := map[string]any{}
	metadata := property{Default: empty}
	for name, d := range map[string]definition{
		"ContainerMetrics": {Required: []string{"name", "usage"}, Properties: map[string]property{"name": {Default: ""}, "usage": {}}},
		"NodeMetrics":      {Required: []string{"timestamp", "window", "usage"}},
		"PodMetrics":       {Required: []string{"timestamp", "window", "containers"}},
		"NodeMetricsList":  {Required: []string{"items"}},
		"PodMetricsList":   {Required: []string{"items"}},
	} {
		if d.Properties == nil {
			d.Properties = map[string]property{"metadata": metadata}
			for _, field := range d.Required {
				d.Properties[field] = property{}
			}
		}
		for _, list := range []string{"items", "containers"} {
			if p, ok := d.Properties[list]; ok {
				p.Items = &property{Default: empty}
				if list == "containers" {
					p.ListType = "atomic"
				}
				d.Properties[list] = p
			}
		}
		o["io.k8s.metrics.pkg.apis.metrics.v1beta1."+name] = d
	}
}

// metrics writes the resources of metrics.k8s.io, which a server of its own brings upstream and ours has built in.
func (g *generator) metrics() {
	g.line("v", "metrics.k8s.io", "v1beta1", "on")
	g.line("r", "nodes", "", "NodeMetrics", "cluster", "", "", "get,list", "", "")
	g.line("r", "pods", "", "PodMetrics", "namespaced", "", "", "get,list", "", "")
}

func readJSON(file string, into any) {
	data, err := os.ReadFile(file)
	check(err)
	check(json.Unmarshal(data, into))
}

func (o openAPI) typeAttrs(name string) []string {
	d, published := o[name]
	if !published {
		return nil
	}
	attrs := []string{"P"}
	if d.MapType != "" {
		attrs = append(attrs, "mt="+d.MapType)
	}
	if d.Unions != nil {
		attrs = append(attrs, "un="+compact(d.Unions))
	}
	return attrs
}

func (o openAPI) fieldAttrs(typeName, field string) []string {
	d := o[typeName]
	p, published := d.Properties[field]
	if !published {
		return nil
	}
	var attrs []string
	if slices.Contains(d.Required, field) {
		attrs = append(attrs, "r")
	}
	if p.ListType != "" {
		attrs = append(attrs, "lt="+p.ListType)
	}
	if len(p.ListMapKeys) > 0 {
		attrs = append(attrs, "lk="+strings.Join(p.ListMapKeys, ","))
	}
	if p.MapType != "" {
		attrs = append(attrs, "mt="+p.MapType)
	}
	if p.Ref != "" {
		// A reference without siblings; most stand in an allOf, beside a description.
		attrs = append(attrs, "br")
	}
	if p.Default != nil {
		attrs = append(attrs, "d="+compact(p.Default))
	}
	if p.Format != "" {
		attrs = append(attrs, "fm="+p.Format)
	}
	for _, element := range []*property{p.Items, p.AdditionalProperties} {
		if element != nil && element.Default != nil {
			attrs = append(attrs, "ed="+compact(element.Default))
		}
	}
	if len(p.Enum) > 0 {
		attrs = append(attrs, "e="+compact(p.Enum))
	}
	return attrs
}

type discoveryList struct {
	Items []struct {
		Metadata struct{ Name string }
		Versions []struct {
			Version   string
			Resources []resource
		}
	}
}

type resource struct {
	Resource         string
	ResponseKind     gvk
	Scope            string
	SingularResource string
	ShortNames       []string
	Categories       []string
	Verbs            []string
	Subresources     []struct {
		Subresource   string
		ResponseKind  gvk
		AcceptedTypes []gvk
		Verbs         []string
	}
}

// discovery writes groups in the order in which upstream lists them, then their versions and resources. The documents were made with every
// version switched on; what upstream v1.36 serves by default are the stable ones alone (controlplane.DefaultAPIResourceConfigSource).
func (g *generator) discovery(module string) {
	dir := filepath.Join(module, "api/discovery")
	var core []resource
	readCore(dir, &core)
	g.version(dir, "", "v1", core)
	var list discoveryList
	readJSON(filepath.Join(dir, "aggregated_v2.json"), &list)
	for _, group := range list.Items {
		for _, version := range group.Versions {
			g.version(dir, group.Metadata.Name, version.Version, version.Resources)
		}
	}
}

// readCore makes the aggregated form of the core group from its legacy document, the only one that upstream publishes.
func readCore(dir string, into *[]resource) {
	for _, r := range legacy(dir, "", "v1") {
		name, sub, isSub := strings.Cut(r.Name, "/")
		kind := gvk{r.Group, r.Version, r.Kind}
		if !isSub {
			scope := "Cluster"
			if r.Namespaced {
				scope = "Namespaced"
			}
			*into = append(*into, resource{
				Resource: r.Name, ResponseKind: kind, Scope: scope, SingularResource: r.SingularName,
				ShortNames: r.ShortNames, Categories: r.Categories, Verbs: r.Verbs,
			})
			continue
		}
		for i := range *into {
			if owner := &(*into)[i]; owner.Resource == name {
				owner.Subresources = append(owner.Subresources, struct {
					Subresource   string
					ResponseKind  gvk
					AcceptedTypes []gvk
					Verbs         []string
				}{Subresource: sub, ResponseKind: kind, Verbs: r.Verbs})
			}
		}
	}
}

type legacyResource struct {
	Name, SingularName, Kind, Group, Version string
	Namespaced                               bool
	ShortNames, Categories, Verbs            []string
	StorageVersionHash                       string
}

func legacy(dir, group, version string) []legacyResource {
	file := "apis__" + group + "__" + version + ".json"
	if group == "" {
		file = "api__" + version + ".json"
	}
	var list struct{ Resources []legacyResource }
	readJSON(filepath.Join(dir, file), &list)
	return list.Resources
}

// deleteAnswers says what a DELETE of one object answers with: the object, or a Status.
func deleteAnswers(module string) map[string]string {
	type operation struct {
		Responses map[string]struct {
			Content map[string]struct {
				Schema struct {
					Ref string `json:"$ref"`
				}
			}
		}
	}
	answers := map[string]string{}
	files, err := filepath.Glob(filepath.Join(module, "api/openapi-spec/v3/*.json"))
	check(err)
	for _, file := range files {
		var document struct {
			Paths map[string]struct{ Delete operation }
		}
		readJSON(file, &document)
		for path, item := range document.Paths {
			ref := item.Delete.Responses["200"].Content["application/json"].Schema.Ref
			if strings.HasSuffix(path, "/{name}") && ref != "" {
				key := strings.Replace(strings.TrimSuffix(path, "/{name}"), "/namespaces/{namespace}", "", 1)
				answers[key] = "object"
				if strings.HasSuffix(ref, ".Status") {
					answers[key] = "status"
				}
			}
		}
	}
	return answers
}

func (g *generator) version(dir, group, version string, resources []resource) {
	prefix := "/apis/" + group + "/" + version + "/"
	if group == "" {
		prefix = "/api/" + version + "/"
	}
	served := "off"
	if !strings.Contains(version, "alpha") && !strings.Contains(version, "beta") {
		served = "on"
	}
	g.line("v", group, version, served)
	hashes := map[string]string{}
	for _, r := range legacy(dir, group, version) {
		hashes[r.Name] = r.StorageVersionHash
	}
	sort.SliceStable(resources, func(i, j int) bool { return resources[i].Resource < resources[j].Resource })
	for _, r := range resources {
		g.line("r", r.Resource, r.SingularResource, kindOf(r.ResponseKind), strings.ToLower(r.Scope), strings.Join(r.ShortNames, ","),
			strings.Join(r.Categories, ","), strings.Join(r.Verbs, ","), hashes[r.Resource], g.deletes[prefix+r.Resource])
		for _, s := range r.Subresources {
			accepted := make([]string, 0, len(s.AcceptedTypes))
			for _, a := range s.AcceptedTypes {
				accepted = append(accepted, kindOf(a))
			}
			g.line("s", s.Subresource, kindOf(s.ResponseKind), strings.Join(s.Verbs, ","), strings.Join(accepted, ","))
		}
	}
}

// kindOf is the kind alone where it is in the group version of its resource, else with group and version.
func kindOf(k gvk) string {
	if k.Version == "" {
		return k.Kind
	}
	return k.Group + "/" + k.Version + "/" + k.Kind
}
