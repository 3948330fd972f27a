import io.grpc.CallOptions;
import io.grpc.ManagedChannel;
import io.grpc.MethodDescriptor;
import io.grpc.MethodDescriptor.MethodType;
import io.grpc.Server;
import io.grpc.ServerServiceDefinition;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.NettyChannelBuilder;
import io.grpc.netty.NettyServerBuilder;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.ServerCalls;
import io.grpc.stub.StreamObserver;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * grpc's interop service by grpc-java over Netty, as far as the loads use it:
 * {@code serve PORT}, or {@code load HOST:PORT CALLS PARALLEL [unary|bidi]}. Messages are bytes
 * here: SimpleRequest and StreamingOutputCallRequest carry the payload as field 3.
 */
final class GrpcJava {
    private static final int SIZE = 100;
    private static final int ROUNDS = 5;
    private static final int DEADLINE_SECONDS = 10;
    /** What the server's own end waits for calls that are under way. */
    private static final int GRACE_SECONDS = 5;

    private static final MethodDescriptor<byte[], byte[]> UNARY = method("UnaryCall", MethodType.UNARY);
    private static final MethodDescriptor<byte[], byte[]> BIDI = method("FullDuplexCall", MethodType.BIDI_STREAMING);
    private static final byte[] PAYLOAD = field(2, new byte[SIZE]);
    private static final byte[] ASKED = join(new byte[] {2 << 3, SIZE}, field(3, PAYLOAD));
    private static final byte[] ASKED_IN_STREAM = join(field(2, new byte[] {1 << 3, SIZE}), field(3, PAYLOAD));
    private static final byte[] ANSWER = field(1, PAYLOAD);
    private static final byte[] END = new byte[0];

    private GrpcJava() {}

    public static void main(String[] args) throws Exception {
        if (args[0].equals("serve")) {
            serve(Integer.parseInt(args[1]));
        } else {
            load(args[1], Integer.parseInt(args[2]), Integer.parseInt(args[3]), args.length > 4 && args[4].equals("bidi"));
        }
    }

    private static void serve(int port) throws Exception {
        ServerServiceDefinition service = ServerServiceDefinition.builder("grpc.testing.TestService")
            .addMethod(UNARY, ServerCalls.asyncUnaryCall((asked, out) -> {
                out.onNext(answer(asked));
                out.onCompleted();
            }))
            .addMethod(BIDI, ServerCalls.asyncBidiStreamingCall(out -> new StreamObserver<byte[]>() {
                @Override public void onNext(byte[] asked) { out.onNext(answer(asked)); }
                @Override public void onError(Throwable error) { }
                @Override public void onCompleted() { out.onCompleted(); }
            }))
            .build();
        Server server = NettyServerBuilder.forPort(port).addService(service).build().start();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                // Clients receive GOAWAY; calls in flight are answered.
                server.shutdown().awaitTermination(GRACE_SECONDS, TimeUnit.SECONDS);
            } catch (InterruptedException error) {
                server.shutdownNow();
            }
        }));
        server.awaitTermination();
    }

    private static void load(String to, int calls, int parallel, boolean bidi) throws Exception {
        int colon = to.lastIndexOf(':');
        ManagedChannel channel = NettyChannelBuilder
            .forAddress(to.substring(0, colon), Integer.parseInt(to.substring(colon + 1))).usePlaintext().build();
        AtomicInteger next = new AtomicInteger();
        Map<String, Integer> reasons = new TreeMap<>();
        List<Thread> workers = new ArrayList<>();
        for (int worker = 0; worker < parallel; worker++) {
            workers.add(new Thread(() -> {
                while (next.getAndIncrement() < calls) {
                    String reason = bidi ? stream(channel) : unary(channel);
                    if (reason != null) {
                        synchronized (reasons) {
                            reasons.merge(reason, 1, Integer::sum);
                        }
                    }
                }
            }));
        }
        for (Thread worker : workers) {
            worker.start();
        }
        for (Thread worker : workers) {
            worker.join();
        }
        int failed = reasons.values().stream().mapToInt(Integer::intValue).sum();
        System.out.println("calls " + calls + " failed " + failed);
        reasons.forEach((reason, count) -> System.out.println("  " + count + " x " + reason));
        channel.shutdownNow().awaitTermination(GRACE_SECONDS, TimeUnit.SECONDS);
    }

    /** Why a call failed; null: it did not. */
    private static String unary(ManagedChannel channel) {
        try {
            byte[] got = ClientCalls.blockingUnaryCall(channel, UNARY, deadline(), ASKED);
            return Arrays.equals(got, ANSWER) ? null : "wrong answer of " + got.length + " bytes";
        } catch (StatusRuntimeException error) {
            return described(error.getStatus());
        }
    }

    /** Rounds of question and answer on one stream. */
    private static String stream(ManagedChannel channel) {
        BlockingQueue<Object> came = new LinkedBlockingQueue<>();
        StreamObserver<byte[]> out = ClientCalls.asyncBidiStreamingCall(channel.newCall(BIDI, deadline()), new StreamObserver<byte[]>() {
            @Override public void onNext(byte[] answer) { came.add(answer); }
            @Override public void onError(Throwable error) { came.add(Status.fromThrowable(error)); }
            @Override public void onCompleted() { came.add(END); }
        });
        try {
            for (int round = 0; round < ROUNDS; round++) {
                out.onNext(ASKED_IN_STREAM);
                Object got = came.poll(2 * DEADLINE_SECONDS, TimeUnit.SECONDS);
                if (got instanceof Status status) {
                    return described(status);
                }
                if (!(got instanceof byte[] answer) || !Arrays.equals(answer, ANSWER)) {
                    return "wrong answer in a stream";
                }
            }
            out.onCompleted();
            Object got = came.poll(2 * DEADLINE_SECONDS, TimeUnit.SECONDS);
            return got == END ? null : got instanceof Status status ? described(status) : "no end of a stream";
        } catch (InterruptedException error) {
            return "interrupted";
        }
    }

    private static CallOptions deadline() {
        return CallOptions.DEFAULT.withDeadlineAfter(DEADLINE_SECONDS, TimeUnit.SECONDS);
    }

    private static String described(Status status) {
        return status.getCode() + " " + status.getDescription();
    }

    /** The payload as it came: the answer's only field. */
    private static byte[] answer(byte[] asked) {
        int[] at = {0};
        while (at[0] < asked.length) {
            int key = varint(asked, at);
            int begin = at[0];
            int value = varint(asked, at);
            if ((key & 7) == 2) {
                at[0] += value;
            }
            if (key == (3 << 3 | 2)) {
                return join(new byte[] {1 << 3 | 2}, Arrays.copyOfRange(asked, begin, at[0]));
            }
        }
        return END;
    }

    private static int varint(byte[] data, int[] at) {
        int value = 0;
        for (int shift = 0;; shift += 7) {
            byte part = data[at[0]++];
            value |= (part & 0x7f) << shift;
            if (part >= 0) {
                return value;
            }
        }
    }

    /** Of fewer than 128 bytes. */
    private static byte[] field(int number, byte[] content) {
        return join(new byte[] {(byte) (number << 3 | 2), (byte) content.length}, content);
    }

    private static byte[] join(byte[] one, byte[] other) {
        byte[] both = Arrays.copyOf(one, one.length + other.length);
        System.arraycopy(other, 0, both, one.length, other.length);
        return both;
    }

    private static MethodDescriptor<byte[], byte[]> method(String name, MethodType type) {
        return MethodDescriptor.<byte[], byte[]>newBuilder().setType(type)
            .setFullMethodName("grpc.testing.TestService/" + name)
            .setRequestMarshaller(new Bytes()).setResponseMarshaller(new Bytes()).build();
    }

    /** Messages as they travel. */
    private static final class Bytes implements MethodDescriptor.Marshaller<byte[]> {
        @Override public InputStream stream(byte[] value) {
            return new ByteArrayInputStream(value);
        }

        @Override public byte[] parse(InputStream stream) {
            try {
                ByteArrayOutputStream all = new ByteArrayOutputStream();
                stream.transferTo(all);
                return all.toByteArray();
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        }
    }
}
