// nethttp is Go's net/http: `nethttp serve ADDRESS` speaks HTTP/1.1 and HTTP/2
// without TLS and answers the pages that every server of the harness has;
// `nethttp call URL` makes the calls of a client and prints what it saw.
// The other commands stand in files of their own: roll, refused, interim and under.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 3 {
		log.Fatal("usage: nethttp serve ADDRESS | roll ADDRESS | call URL [h2] | refused URL [h2] | interim URL [h2] | under URL PATH BYTES SECONDS [h2]")
	}
	h2 := os.Args[len(os.Args)-1] == "h2"
	switch os.Args[1] {
	case "serve":
		serve(os.Args[2])
	case "roll":
		roll(os.Args[2])
	case "refused":
		refused(os.Args[2], h2)
	case "interim":
		interim(os.Args[2], h2)
	case "under":
		under(os.Args[2:], h2)
	default:
		call(os.Args[2], h2)
	}
}

func serve(address string) {
	pages := http.NewServeMux()
	pages.HandleFunc("/hello", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "hello\n")
	})
	pages.HandleFunc("/bytes/{count}", func(w http.ResponseWriter, r *http.Request) {
		count, _ := strconv.Atoi(r.PathValue("count"))
		w.Header().Set("Content-Length", strconv.Itoa(count))
		piece := bytes.Repeat([]byte("0123456789abcdef"), 4096)
		for count > 0 {
			part := piece[:min(count, len(piece))]
			if _, err := w.Write(part); err != nil {
				return
			}
			count -= len(part)
		}
	})
	pages.HandleFunc("/empty", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) })
	pages.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		// HTTP/1.1 handlers may otherwise not answer before they have read all.
		_ = control.EnableFullDuplex()
		if kind := r.Header.Get("Content-Type"); kind != "" {
			w.Header().Set("Content-Type", kind)
		}
		buffer := make([]byte, 32*1024)
		for {
			read, err := r.Body.Read(buffer)
			if read > 0 {
				if _, err := w.Write(buffer[:read]); err != nil {
					return
				}
				_ = control.Flush()
			}
			if err == io.EOF {
				return
			}
			if err != nil {
				// A broken upload must not look like a whole one.
				panic(http.ErrAbortHandler)
			}
		}
	})
	pages.HandleFunc("/size", func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		count, err := io.Copy(sum, r.Body)
		fmt.Fprintf(w, "%d %x %v %v\n", count, sum.Sum(nil)[:8], err, r.Trailer)
	})
	pages.HandleFunc("/drip", func(w http.ResponseWriter, _ *http.Request) {
		for n := range 5 {
			fmt.Fprintf(w, "data: %d\n\n", n)
			_ = http.NewResponseController(w).Flush()
			time.Sleep(40 * time.Millisecond)
		}
	})
	pages.HandleFunc("/trailers", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		io.WriteString(w, "body\n")
		w.Header().Set("X-Sum", "42")
		w.Header().Set(http.TrailerPrefix+"X-Late", "unannounced")
	})
	pages.HandleFunc("/abort", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	pages.HandleFunc("/early", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		http.Error(w, "too much", 413)
	})
	pages.HandleFunc("/hints", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(103)
		io.WriteString(w, "hinted\n")
	})
	pages.HandleFunc("/hints/{count}", func(w http.ResponseWriter, r *http.Request) {
		count, _ := strconv.Atoi(r.PathValue("count"))
		for n := range count {
			w.Header().Set("Link", fmt.Sprintf("</style-%d.css>; rel=preload", n))
			w.WriteHeader(103)
		}
		io.WriteString(w, "hinted\n")
	})
	pages.HandleFunc("/headers", func(w http.ResponseWriter, r *http.Request) {
		var names []string
		for name := range r.Header {
			names = append(names, name)
		}
		sort.Strings(names)
		fmt.Fprintf(w, "%s %s %s host=%s length=%d %v\n", r.Method, r.RequestURI, r.Proto, r.Host, r.ContentLength, r.TransferEncoding)
		for _, name := range names {
			fmt.Fprintf(w, "%s: %s\n", name, strings.Join(r.Header[name], " | "))
		}
	})
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: pages, Protocols: protocols, ErrorLog: log.New(io.Discard, "", 0)}
	serveUntilTerminated(server, address)
}

// transportOf speaks either version of HTTP, and only that, without TLS.
func transportOf(h2 bool) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!h2)
	protocols.SetUnencryptedHTTP2(h2)
	return &http.Transport{Protocols: protocols, MaxIdleConnsPerHost: 100}
}

func call(base string, h2 bool) {
	transport := transportOf(h2)
	client := &http.Client{Transport: transport, Timeout: 20 * time.Second}

	show := func(name string, request *http.Request) {
		trace := ""
		hints := &httptrace.ClientTrace{Got1xxResponse: func(code int, _ textproto.MIMEHeader) error {
			trace += fmt.Sprintf(" %d", code)
			return nil
		}}
		answer, err := client.Do(request.WithContext(httptrace.WithClientTrace(request.Context(), hints)))
		if err != nil {
			fmt.Printf("%s: %s\n", name, kind(err))
			return
		}
		defer answer.Body.Close()
		sum := sha256.New()
		count, err := io.Copy(sum, answer.Body)
		fmt.Printf("%s:%s %s %s length=%d %v bytes=%d %x end=%s trailers=%v type=%s\n", name, trace, answer.Proto, answer.Status,
			answer.ContentLength, answer.TransferEncoding, count, sum.Sum(nil)[:4], kind(err), answer.Trailer, answer.Header.Get("Content-Type"))
	}
	request := func(method, path string, body io.Reader) *http.Request {
		made, err := http.NewRequest(method, base+path, body)
		if err != nil {
			log.Fatal(err)
		}
		return made
	}
	for _, path := range []string{"/hello", "/hello", "/bytes/0", "/bytes/1", "/bytes/65536", "/bytes/5000000", "/empty", "/drip", "/trailers", "/hints", "/abort", "/none"} {
		show("GET "+path, request("GET", path, nil))
	}
	show("HEAD /bytes/1000", request("HEAD", "/bytes/1000", nil))
	for _, size := range []int{0, 1, 16384, 65535, 65536, 1000000, 5000000} {
		body := bytes.Repeat([]byte("x"), size)
		show(fmt.Sprintf("POST /echo %d", size), request("POST", "/echo", bytes.NewReader(body)))
		show(fmt.Sprintf("POST /size %d of unknown length", size), request("POST", "/size", io.MultiReader(bytes.NewReader(body))))
	}
	with := request("POST", "/size", io.MultiReader(strings.NewReader("with trailers")))
	with.Trailer = http.Header{"X-Check": {"7"}}
	show("POST /size with trailers", with)
	expecting := request("POST", "/size", strings.NewReader("expected"))
	expecting.Header.Set("Expect", "100-continue")
	transport.ExpectContinueTimeout = 5 * time.Second
	show("POST /size with Expect", expecting)
	talk(client, base)
	seen(client, request("GET", "/headers", nil))

	// Fifty at once, each with a body of its own.
	var all sync.WaitGroup
	var lock sync.Mutex
	wrong := map[string]int{}
	for n := range 50 {
		all.Add(1)
		go func() {
			defer all.Done()
			for m := range 10 {
				text := strings.Repeat(fmt.Sprintf("%d-%d ", n, m), 100)
				answer, err := client.Post(base+"/echo", "text/plain", strings.NewReader(text))
				got := ""
				if err == nil {
					var body []byte
					body, err = io.ReadAll(answer.Body)
					answer.Body.Close()
					got = string(body)
				}
				if err != nil || got != text {
					lock.Lock()
					wrong[fmt.Sprintf("%s %d of %d bytes", kind(err), len(got), len(text))]++
					lock.Unlock()
				}
			}
		}()
	}
	all.Wait()
	fmt.Printf("50 x 10 echoes: wrong %v\n", wrong)

	// Leaves in the middle of answers; the connection must go on afterwards.
	for range 20 {
		ctx, cancel := context.WithCancel(context.Background())
		answer, err := client.Do(request("GET", "/bytes/5000000", nil).WithContext(ctx))
		if err == nil {
			_, _ = io.ReadFull(answer.Body, make([]byte, 1000))
			cancel()
			answer.Body.Close()
		}
		cancel()
	}
	show("GET /hello after 20 that were left", request("GET", "/hello", nil))
}

// seen prints what the server says that it was sent.
func seen(client *http.Client, request *http.Request) {
	answer, err := client.Do(request)
	if err != nil {
		fmt.Printf("headers: %s\n", kind(err))
		return
	}
	defer answer.Body.Close()
	if answer.StatusCode != 200 {
		fmt.Printf("headers: %d\n", answer.StatusCode)
		return
	}
	said, err := io.ReadAll(answer.Body)
	fmt.Printf("headers: %s\n%s", kind(err), said)
}

// talk sends a piece and waits for its echo before it sends the next.
func talk(client *http.Client, base string) {
	reader, writer := io.Pipe()
	request, _ := http.NewRequest("POST", base+"/echo", reader)
	go func() { _, _ = writer.Write([]byte("piece 0\n")) }()
	answer, err := client.Do(request)
	if err != nil {
		fmt.Printf("talk: %s\n", kind(err))
		return
	}
	defer answer.Body.Close()
	for n := range 4 {
		got := make([]byte, len("piece 0\n"))
		if _, err := io.ReadFull(answer.Body, got); err != nil {
			fmt.Printf("talk: round %d: %s\n", n, kind(err))
			return
		}
		fmt.Printf("talk: %q\n", got)
		if n == 3 {
			writer.Close()
		} else {
			fmt.Fprintf(writer, "piece %d\n", n+1)
		}
	}
	rest, err := io.ReadAll(answer.Body)
	fmt.Printf("talk: ends with %q %s\n", rest, kind(err))
}

// kind names an error without addresses.
func kind(err error) string {
	var network net.Error
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &network) && network.Timeout():
		return "timeout"
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return "unexpected EOF"
	}
	text := err.Error()
	for _, known := range []string{"connection reset", "connection refused", "broken pipe", "INTERNAL_ERROR", "PROTOCOL_ERROR", "CANCEL", "REFUSED_STREAM", "server closed", "GOAWAY"} {
		if strings.Contains(text, known) {
			return known
		}
	}
	return text
}
