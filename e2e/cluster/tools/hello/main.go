// The smallest application that shows whether a cluster works. It knows nothing
// of a mesh, so that `make cluster-smoke` blames the cluster and nothing else.
//
//	hello serve        answers every request on :8080 with its own host name
//	hello fetch URL    prints the answer, exits 1 when there is none within 5 s
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

const deadline = 5 * time.Second

// No answer of ours is longer than a host name.
const longestAnswer = 1 << 10

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "serve":
		return serve()
	case len(args) == 2 && args[0] == "fetch":
		return fetch(args[1])
	}
	return fmt.Errorf("usage: hello serve | hello fetch URL")
}

func serve() error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	fmt.Println("serving as", name)
	server := http.Server{
		Addr:              ":8080",
		ReadHeaderTimeout: deadline,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintln(w, name)
		}),
	}
	return server.ListenAndServe()
}

func fetch(url string) error {
	client := http.Client{Timeout: deadline}
	answer, err := client.Get(url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, answer.Status)
	}
	_, err = io.Copy(os.Stdout, io.LimitReader(answer.Body, longestAnswer))
	return err
}
