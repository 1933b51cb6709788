// probe waits until an HTTPS address answers 200, asking again every millisecond, and prints how many milliseconds that took from its own
// start on. With a command behind the address it starts that first, and leaves it running.
//
//	probe URL [COMMAND ARGUMENT…]
package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "probe URL [COMMAND ARGUMENT…]")
		os.Exit(2)
	}
	client := &http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
		Timeout:   time.Second,
	}
	start := time.Now()
	if len(os.Args) > 2 {
		if err := exec.Command(os.Args[2], os.Args[3:]...).Start(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	for time.Since(start) < 2*time.Minute {
		if answer, err := client.Get(os.Args[1]); err == nil {
			io.Copy(io.Discard, answer.Body)
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				fmt.Println(time.Since(start).Milliseconds())
				return
			}
		}
		time.Sleep(time.Millisecond)
	}
	fmt.Fprintln(os.Stderr, "no answer in two minutes:", os.Args[1])
	os.Exit(1)
}
