import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.ByteArrayInputStream;
import java.io.DataInputStream;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileSystems;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.Stream;

/**
 * A server that starts slowly and answers quickly: it reads every class of the Java runtime, notes which
 * classes mention which names, and then tells who uses what.
 *
 * <p>Arguments: the port, and how many classes at most.
 *
 * <p>GET /uses?java/util/HashMap: how many classes mention it, out of how many, and the how-manieth
 * question this is.
 */
public final class SlowStart {
    private final Map<String, List<String>> users = new HashMap<>();
    private final AtomicLong questions = new AtomicLong();
    private int classes;

    public static void main(String[] arguments) throws IOException {
        SlowStart index = new SlowStart();
        index.readClasses(arguments.length > 1 ? Integer.parseInt(arguments[1]) : Integer.MAX_VALUE);
        int port = Integer.parseInt(arguments[0]);
        HttpServer server = HttpServer.create(new InetSocketAddress(port), 0);
        server.setExecutor(Executors.newFixedThreadPool(8));
        server.createContext("/uses", index::answer);
        server.start();
        System.out.println("ready: " + index.classes + " classes, " + index.users.size() + " names");
    }

    private void readClasses(int most) throws IOException {
        Path modules = FileSystems.getFileSystem(URI.create("jrt:/")).getPath("/modules");
        try (Stream<Path> files = Files.walk(modules)) {
            for (Path file : (Iterable<Path>) files::iterator) {
                if (classes == most) {
                    return;
                }
                if (file.toString().endsWith(".class")) {
                    read(file.toString(), Files.readAllBytes(file));
                }
            }
        }
    }

    /** The constant pool of a class file: The Java Virtual Machine Specification, 4.4. */
    private void read(String name, byte[] bytes) throws IOException {
        DataInputStream in = new DataInputStream(new ByteArrayInputStream(bytes));
        in.skipNBytes(8);
        int constants = in.readUnsignedShort();
        for (int i = 1; i < constants; i++) {
            int tag = in.readUnsignedByte();
            switch (tag) {
                case 1 -> users.computeIfAbsent(in.readUTF(), key -> new ArrayList<>()).add(name);
                case 3, 4, 9, 10, 11, 12, 17, 18 -> in.skipNBytes(4);
                case 5, 6 -> {
                    in.skipNBytes(8);
                    i++;
                }
                case 7, 8, 16, 19, 20 -> in.skipNBytes(2);
                case 15 -> in.skipNBytes(3);
                default -> throw new IOException(name + ": constant of kind " + tag);
            }
        }
        classes++;
    }

    private void answer(HttpExchange exchange) throws IOException {
        String name = exchange.getRequestURI().getQuery();
        int found = users.getOrDefault(name, List.of()).size();
        String said = found + " of " + classes + ", question " + questions.incrementAndGet() + "\n";
        byte[] body = said.getBytes(StandardCharsets.UTF_8);
        exchange.sendResponseHeaders(200, body.length);
        try (exchange) {
            exchange.getResponseBody().write(body);
        }
    }
}
