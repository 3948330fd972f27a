// Java's own HTTP server with the pages of the harness: java Pages.java PORT

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.OutputStream;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.Executors;

public class Pages {
    public static void main(String[] arguments) throws IOException {
        HttpServer server = HttpServer.create(new InetSocketAddress(Integer.parseInt(arguments[0])), 256);
        server.setExecutor(Executors.newCachedThreadPool());
        server.createContext("/", Pages::answer);
        server.start();
    }

    private static void answer(HttpExchange call) throws IOException {
        String path = call.getRequestURI().getPath();
        boolean head = call.getRequestMethod().equals("HEAD");
        call.getResponseHeaders().set("Content-Type", "text/plain");
        try (call; OutputStream out = call.getResponseBody()) {
            if (path.equals("/hello")) {
                whole(call, out, 200, "hello\n", head);
            } else if (path.startsWith("/bytes/")) {
                long left = Long.parseLong(path.substring(7));
                if (head) {
                    call.getResponseHeaders().set("Content-Length", Long.toString(left));
                    call.sendResponseHeaders(200, -1);
                    return;
                }
                // 0 means chunks here, and -1 nothing.
                call.sendResponseHeaders(200, left == 0 ? -1 : left);
                byte[] piece = "0123456789abcdef".repeat(4096).getBytes(StandardCharsets.US_ASCII);
                while (left > 0) {
                    out.write(piece, 0, (int) Math.min(left, piece.length));
                    left -= piece.length;
                }
            } else if (path.equals("/echo")) {
                call.sendResponseHeaders(200, 0);
                byte[] buffer = new byte[8192];
                int read;
                while ((read = call.getRequestBody().read(buffer)) > 0) {
                    out.write(buffer, 0, read);
                    out.flush();
                }
            } else if (path.equals("/size")) {
                whole(call, out, 200, call.getRequestBody().readAllBytes().length + "\n", head);
            } else if (path.equals("/drip")) {
                call.sendResponseHeaders(200, 0);
                for (int n = 0; n < 5; n++) {
                    out.write(("data: " + n + "\n\n").getBytes(StandardCharsets.US_ASCII));
                    out.flush();
                    Thread.sleep(40);
                }
            } else {
                whole(call, out, 404, "none\n", head);
            }
        } catch (InterruptedException ended) {
            Thread.currentThread().interrupt();
        }
    }

    private static void whole(HttpExchange call, OutputStream out, int status, String text, boolean head) throws IOException {
        byte[] body = text.getBytes(StandardCharsets.US_ASCII);
        call.sendResponseHeaders(status, head ? -1 : body.length);
        if (!head) {
            out.write(body);
        }
    }
}
