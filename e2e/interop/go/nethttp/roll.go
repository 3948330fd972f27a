package main

import (
	"context"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

// Where a child of roll finds the listening socket: behind standard error.
const inherited = 3

// grace is the time that a server has for requests in flight.
const grace = 10 * time.Second

// serveUntilTerminated serves until SIGTERM, and then requests in flight: clients of HTTP/2
// receive GOAWAY, and idle connections are closed. The address "inherited" is the socket of
// roll.
func serveUntilTerminated(server *http.Server, address string) {
	var listener net.Listener
	var err error
	if address == "inherited" {
		listener, err = net.FileListener(os.NewFile(inherited, "listener"))
	} else {
		listener, err = net.Listen("tcp", address)
	}
	if err != nil {
		log.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	terminated, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	select {
	case err := <-ended:
		log.Fatal(err)
	case <-terminated.Done():
	}
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
}

// roll holds the listening socket and serves by a child. At SIGHUP it starts another one
// and then ends the old one, as a rolling restart does: every connection finds a process
// that accepts it.
func roll(address string) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	socket, err := listener.(*net.TCPListener).File()
	if err != nil {
		log.Fatal(err)
	}
	start := func() *exec.Cmd {
		child := exec.Command(os.Args[0], "serve", "inherited")
		child.ExtraFiles = []*os.File{socket}
		child.Stderr = os.Stderr
		// The harness ends this process without a sign.
		child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := child.Start(); err != nil {
			log.Fatal(err)
		}
		return child
	}
	again := make(chan os.Signal, 1)
	signal.Notify(again, syscall.SIGHUP)
	for old := start(); ; {
		<-again
		next := start()
		// Until it serves. It shares the queue, so nothing is lost before that.
		time.Sleep(200 * time.Millisecond)
		_ = old.Process.Signal(syscall.SIGTERM)
		go func(ended *exec.Cmd) { _ = ended.Wait() }(old)
		old = next
	}
}
