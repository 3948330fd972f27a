package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// hintsEach are the interim answers before each answer: as many as Go's client takes.
const hintsEach = 5

// Calls with hints one after the other, and of each of 50 at once: 25 000 hints on one
// connection of HTTP/2 within seconds, where a proxy reads 20 000 control frames within 10 s
// that no call asked for.
const (
	hintedInTurn    = 200
	hintedAtOnce    = 50
	hintedEach      = 100
	expectingAtOnce = 20
)

// interim makes calls that are answered 103 a few times before they are answered, and some
// that wait for 100 before they send their bodies. Prints the interim answers of each call
// and what came behind them.
func interim(base string, h2 bool) {
	transport := transportOf(h2)
	// Where no 100 comes, each waits for that long.
	transport.ExpectContinueTimeout = time.Second
	var dialled atomic.Int64
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		dialled.Add(1)
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	client := &http.Client{Transport: transport, Timeout: 20 * time.Second}
	hinted := func() string { return withInterim(client, "GET", base+fmt.Sprintf("/hints/%d", hintsEach), nil, "") }
	var lock sync.Mutex
	came := map[string]int{}
	count := func(said string) {
		lock.Lock()
		defer lock.Unlock()
		came[said]++
	}
	show := func(name string) {
		for _, said := range slices.Sorted(maps.Keys(came)) {
			fmt.Printf("%s:%s, %d times\n", name, said, came[said])
		}
		clear(came)
	}

	for range hintedInTurn {
		count(hinted())
	}
	show("GET with hints, in turn")
	fmt.Printf("connections so far: %d\n", dialled.Load())
	atOnce(hintedAtOnce, func() {
		for range hintedEach {
			count(hinted())
		}
	})
	show(fmt.Sprintf("GET with hints, %d at once", hintedAtOnce))
	atOnce(expectingAtOnce, func() {
		count(withInterim(client, "POST", base+"/size", strings.NewReader("expected"), "100-continue"))
	})
	show(fmt.Sprintf("POST with Expect, %d at once", expectingAtOnce))
	count(withInterim(client, "GET", base+"/hello", nil, ""))
	show("GET /hello behind them")
}

// withInterim makes a call, and returns its interim responses before the final one.
func withInterim(client *http.Client, method, url string, body io.Reader, expect string) string {
	var seen strings.Builder
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, _ textproto.MIMEHeader) error {
		fmt.Fprintf(&seen, " %d", code)
		return nil
	}}
	request, err := http.NewRequestWithContext(httptrace.WithClientTrace(context.Background(), trace), method, url, body)
	if err != nil {
		log.Fatal(err)
	}
	if expect != "" {
		request.Header.Set("Expect", expect)
	}
	answer, err := client.Do(request)
	if err != nil {
		return fmt.Sprintf("%s %s", seen.String(), kind(err))
	}
	defer answer.Body.Close()
	said, err := io.ReadAll(answer.Body)
	return fmt.Sprintf("%s %s %s %q end=%s", seen.String(), answer.Proto, answer.Status, said, kind(err))
}

// atOnce does something so many times side by side, and waits for all.
func atOnce(times int, act func()) {
	var all sync.WaitGroup
	for range times {
		all.Go(act)
	}
	all.Wait()
}
