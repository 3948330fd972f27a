package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The printed length of a response's body: enough to recognize the mesh's refusal.
const shownOfBody = 17

// refused asks for what no rule admits in every way, and then for what one does. The
// other clients of refusals print the same lines.
func refused(base string, h2 bool) {
	transport := transportOf(h2)
	var dialled atomic.Int64
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		dialled.Add(1)
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	client := &http.Client{Transport: transport, Timeout: 20 * time.Second}
	ask := func(method, path string, body io.Reader) string {
		request, err := http.NewRequest(method, base+path, body)
		if err != nil {
			log.Fatal(err)
		}
		answer, err := client.Do(request)
		if err != nil {
			return kind(err)
		}
		defer answer.Body.Close()
		said, err := io.ReadAll(answer.Body)
		if err != nil {
			return fmt.Sprintf("%d %s", answer.StatusCode, kind(err))
		}
		return strings.TrimSpace(fmt.Sprintf("%d %s", answer.StatusCode, said[:min(len(said), shownOfBody)]))
	}
	show := func(name, said string) { fmt.Printf("%s: %s\n", name, said) }
	for range 10 {
		ask("GET", "/private", nil)
	}
	show("GET", ask("GET", "/private", nil))
	show("HEAD", ask("HEAD", "/private", nil))
	show("allowed behind them", ask("GET", "/hello", nil))
	show("connections so far", fmt.Sprint(dialled.Load()))
	large := bytes.Repeat([]byte("x"), 1_000_000)
	show("POST 1", ask("POST", "/private", strings.NewReader("x")))
	show("POST 1000000", ask("POST", "/private", bytes.NewReader(large)))
	show("POST 1000000 of unknown length", ask("POST", "/private", io.MultiReader(bytes.NewReader(large))))
	var all sync.WaitGroup
	var lock sync.Mutex
	said := map[string]int{}
	for range 50 {
		all.Add(1)
		go func() {
			defer all.Done()
			got := ask("POST", "/private", bytes.NewReader(large[:10_000]))
			lock.Lock()
			said[got]++
			lock.Unlock()
		}()
	}
	all.Wait()
	fmt.Print("50 at once:")
	for answer, count := range said {
		fmt.Printf(" %d x %s", count, answer)
	}
	fmt.Println()
	show("allowed at the end", ask("GET", "/hello", nil))
}
