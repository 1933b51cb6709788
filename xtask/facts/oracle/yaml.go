package main

import (
	"encoding/json"
	"fmt"
	"math/rand"
	"regexp"
	"strings"

	"sigs.k8s.io/yaml"
	goyaml "sigs.k8s.io/yaml/goyaml.v2"
)

// yamlCase is a document that somebody might write by hand, and what upstream reads.
func yamlCase(r *rand.Rand) object {
	for {
		var b strings.Builder
		block(r, &b, 0, 3)
		text := b.String()
		read, err := yaml.YAMLToJSON([]byte(text))
		if err != nil {
			return object{"text": text, "error": err.Error()}
		}
		if oneAnswer(text, read) {
			return object{"text": text, "tree": json.RawMessage(read)}
		}
	}
}

// oneAnswer is whether all keys of the document are left: of those that become the same text (numbers too large for 32 bits all become ".inf") the last in
// Go's order of maps wins, which is another in each run.
func oneAnswer(text string, read []byte) bool {
	var before, after any
	return goyaml.Unmarshal([]byte(text), &before) == nil && json.Unmarshal(read, &after) == nil && countKeys(before) == countKeys(after)
}

// countKeys is how many there are at all depths.
func countKeys(tree any) int {
	n := 0
	switch tree := tree.(type) {
	case map[any]any:
		for _, value := range tree {
			n += 1 + countKeys(value)
		}
	case map[string]any:
		for _, value := range tree {
			n += 1 + countKeys(value)
		}
	case []any:
		for _, value := range tree {
			n += countKeys(value)
		}
	}
	return n
}

func block(r *rand.Rand, b *strings.Builder, indent int, depth int) {
	margin := strings.Repeat(" ", indent)
	list := r.Intn(4) == 0
	for i := range 1 + r.Intn(4) {
		b.WriteString(margin)
		switch {
		case list:
			b.WriteString("- ")
		case r.Intn(4) == 0:
			// What is quoted must not become the same key as what is not: upstream leaves the order to Go's maps.
			key := scalar(r)
			fmt.Fprintf(b, "%s: ", key[:1]+strings.Repeat("q", strings.Count(key[:1], "'")+strings.Count(key[:1], "\""))+key[1:])
		default:
			fmt.Fprintf(b, "k%d: ", i)
		}
		switch n := r.Intn(12); {
		case n < 2 && depth > 0:
			b.WriteString("\n")
			block(r, b, indent+2, depth-1)
			continue
		case n == 2:
			fmt.Fprintf(b, "[%s, %s]", flow(r), flow(r))
		case n == 3:
			fmt.Fprintf(b, "{a: %s, %s: b}", flow(r), flow(r))
		case n == 4:
			fmt.Fprintf(b, "%s\n%s    %s", []string{"|", ">", "|-", ">+", ""}[r.Intn(5)], margin, scalar(r))
		case n == 5:
			fmt.Fprintf(b, "%s %s", []string{"!!str", "!!int", "!!float", "!!bool", "!!null", "!!binary", "!!timestamp", "!mine", "&a", "!"}[r.Intn(10)], scalar(r))
		case n == 6 && r.Intn(3) == 0:
			b.WriteString("*a")
		default:
			b.WriteString(scalar(r))
		}
		b.WriteString("\n")
	}
}

// flow is without the indicators that YAML 1.1 and 1.2 read differently beside those of a list.
func flow(r *rand.Rand) string {
	text := scalar(r)
	if text[0] == '"' || text[0] == '\'' {
		return text
	}
	return strings.NewReplacer(":", "_", "?", "_", "-", "_", ",", "_", "#", "_").Replace(text)
}

// odd are beginnings that the two versions of YAML, or the two libraries, read differently: anchors, aliases and tags with other letters, headers of block
// scalars with a comment, marks of a document with more behind them, quotes and brackets that end lines later and less indented.
var odd = regexp.MustCompile(`^$|^ *([&!*|>'"{[]|---|\.\.\.)`)

// scalar is mostly plain.
func scalar(r *rand.Rand) string {
	text := strings.Map(func(c rune) rune {
		if c == '\n' || c == '\r' || c == '\u0085' || c == '\ufeff' || c < ' ' || c == 0x7f {
			return '_'
		}
		return c
	}, randomText(r))
	switch r.Intn(8) {
	case 0:
		return "'" + strings.ReplaceAll(text, "'", "''") + "'"
	case 1:
		return fmt.Sprintf("%q", text)
	case 2:
		return fmt.Sprint(r.Intn(100000) - 50000)
	case 3:
		return fmt.Sprintf("%s%d%s%d", []string{"", "", "+", "-", "0", "0x", "0b", "0o", "."}[r.Intn(9)], r.Intn(1000), []string{"", "e", "E", ".", "_", ":", "e+", "-"}[r.Intn(8)], r.Intn(100))
	}
	if odd.MatchString(text) {
		return "x" + text
	}
	return text
}
