// Clients as Go programs write them, run by tests/tests/blackbox/clients.rs with KUBECONFIG set:
//
//	informers    client-go: typed clients and shared informers, all in protobuf
//	operator     controller-runtime: a manager with a reconciler for a custom resource; runs until it is told to end
//
// Each prints what it has seen; what does not come ends the program with an error.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()
	parts := map[string]func(context.Context) error{"informers": informers, "operator": operator}
	if len(os.Args) != 2 || parts[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: clients informers|operator")
		os.Exit(2)
	}
	if err := parts[os.Args[1]](ctx); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
