package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Workers by what their calls are: in the middle of an answer nearly always, on connections
// that are mostly idle, and not safe to send twice.
const (
	inAnswers = 50
	onIdle    = 10
	posting   = 5
)

// Rest between two calls of those that are mostly idle, and of those that post.
const idleFor, postEvery = 400 * time.Millisecond, 50 * time.Millisecond

// outcome is what became of one kind of calls.
type outcome struct {
	Whole  int            `json:"whole"`
	Failed map[string]int `json:"failed"`
	// Answers that ended well and were not whole.
	Short int `json:"short"`
}

// under calls a server for some seconds, during which it leaves and another takes its
// place: URL PATH BYTES SECONDS. PATH is answered slowly with so many bytes. Prints as JSON
// what became of the calls.
func under(arguments []string, h2 bool) {
	if len(arguments) < 4 {
		log.Fatal("usage: nethttp under URL PATH BYTES SECONDS [h2]")
	}
	base, path := arguments[0], arguments[1]
	length, err := strconv.Atoi(arguments[2])
	if err != nil {
		log.Fatal(err)
	}
	seconds, err := strconv.Atoi(arguments[3])
	if err != nil {
		log.Fatal(err)
	}
	client := &http.Client{Transport: transportOf(h2), Timeout: 20 * time.Second}
	end := time.Now().Add(time.Duration(seconds) * time.Second)
	var all sync.WaitGroup
	var lock sync.Mutex
	outcomes := map[string]*outcome{}
	work := func(name string, workers int, rest time.Duration, method, path string, length int) {
		became := &outcome{Failed: map[string]int{}}
		outcomes[name] = became
		for range workers {
			all.Go(func() {
				for time.Now().Before(end) {
					got, failed := fetch(client, method, base+path)
					lock.Lock()
					switch {
					case failed != "":
						became.Failed[failed]++
					case got != length:
						became.Short++
					default:
						became.Whole++
					}
					lock.Unlock()
					if failed != "" {
						// Where nothing listens, calls fail at once.
						time.Sleep(postEvery)
					}
					time.Sleep(rest)
				}
			})
		}
	}
	work("GET", inAnswers, 0, "GET", path, length)
	work("GET, mostly idle", onIdle, idleFor, "GET", "/hello", len("hello\n"))
	work("POST", posting, postEvery, "POST", "/hello", len("hello\n"))
	all.Wait()
	_ = json.NewEncoder(os.Stdout).Encode(outcomes)
}

// fetch gives the length of an answer, or how the call failed.
func fetch(client *http.Client, method, url string) (int, string) {
	var body io.Reader
	if method == "POST" {
		body = strings.NewReader("some bytes")
	}
	request, err := http.NewRequest(method, url, body)
	if err != nil {
		log.Fatal(err)
	}
	answer, err := client.Do(request)
	if err != nil {
		return 0, kind(err)
	}
	defer answer.Body.Close()
	got, err := io.Copy(io.Discard, answer.Body)
	switch {
	case answer.StatusCode != 200:
		return 0, strings.TrimSpace(fmt.Sprintf("%d %s", answer.StatusCode, answer.Header.Get("weft-reason")))
	case err != nil:
		return 0, "broken off: " + kind(err)
	}
	return int(got), ""
}
