// grpcload makes calls of grpc-go's own interop service, many at once, and prints
// how many failed and why. Every answer is compared with what was sent.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

func main() {
	to := flag.String("to", "", "address")
	calls := flag.Int("calls", 1000, "how many calls")
	parallel := flag.Int("parallel", 50, "how many at once")
	connections := flag.Int("connections", 1, "channels")
	size := flag.Int("size", 100, "bytes in request and answer")
	kind := flag.String("kind", "unary", "unary or bidi")
	deadline := flag.Duration("deadline", 10*time.Second, "of one call")
	lasting := flag.Duration("lasting", 0, "calls for so long, and not a number of them")
	flag.Parse()
	end := time.Now().Add(*lasting)
	more := func(made int64) bool {
		if *lasting > 0 {
			return time.Now().Before(end)
		}
		return made <= int64(*calls)
	}

	var clients []testgrpc.TestServiceClient
	for range *connections {
		connection, err := grpc.NewClient("passthrough:///"+*to, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		clients = append(clients, testgrpc.NewTestServiceClient(connection))
	}
	call := unary
	if *kind == "bidi" {
		call = bidi
	}
	var next, made, failed atomic.Int64
	var lock sync.Mutex
	reasons := map[string]int{}
	var all sync.WaitGroup
	for worker := range *parallel {
		all.Add(1)
		go func() {
			defer all.Done()
			for more(next.Add(1)) {
				made.Add(1)
				ctx, cancel := context.WithTimeout(context.Background(), *deadline)
				err := call(ctx, clients[worker%len(clients)], *size)
				cancel()
				if err != nil {
					failed.Add(1)
					lock.Lock()
					reasons[fmt.Sprintf("%s %s", status.Code(err), status.Convert(err).Message())]++
					lock.Unlock()
					if *lasting > 0 {
						// Where nothing listens, calls fail at once.
						time.Sleep(50 * time.Millisecond)
					}
				}
			}
		}()
	}
	all.Wait()
	fmt.Printf("calls %d failed %d\n", made.Load(), failed.Load())
	var kinds []string
	for reason := range reasons {
		kinds = append(kinds, reason)
	}
	sort.Strings(kinds)
	for _, reason := range kinds {
		fmt.Printf("  %d x %s\n", reasons[reason], reason)
	}
}

func unary(ctx context.Context, client testgrpc.TestServiceClient, size int) error {
	answer, err := client.UnaryCall(ctx, &testpb.SimpleRequest{
		ResponseSize: int32(size),
		Payload:      &testpb.Payload{Body: make([]byte, size)},
	})
	if err != nil {
		return err
	}
	return same(answer.GetPayload().GetBody(), size)
}

// bidi has five rounds of question and answer on one stream.
func bidi(ctx context.Context, client testgrpc.TestServiceClient, size int) error {
	stream, err := client.FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	for range 5 {
		err := stream.Send(&testpb.StreamingOutputCallRequest{
			ResponseParameters: []*testpb.ResponseParameters{{Size: int32(size)}},
			Payload:            &testpb.Payload{Body: make([]byte, size)},
		})
		// A stream that has ended says so to who sends, and why to who receives.
		if err != nil && err != io.EOF {
			return err
		}
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		if err := same(answer.GetPayload().GetBody(), size); err != nil {
			return err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if _, err := stream.Recv(); err != io.EOF {
		return fmt.Errorf("after the last answer: %v", err)
	}
	return nil
}

func same(got []byte, size int) error {
	if !bytes.Equal(got, make([]byte, size)) {
		return fmt.Errorf("%d bytes came, not the %d zeros that were asked for", len(got), size)
	}
	return nil
}
