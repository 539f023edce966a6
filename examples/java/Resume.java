import java.io.IOException;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import switchyard.v1.Event;
import switchyard.v1.Events;
import switchyard.v1.ReceivedEvent;
import switchyard.v1.StartPreset;
import switchyard.v1.SubscriptionSpec;

/**
 * Follows a stream and keeps its place in a file, so that it goes on where it was after it has been killed.
 *
 * <pre>java -cp "$CP" Resume orders orders.token 'orders.eu.>'</pre>
 */
final class Resume extends Following {
    private static final int MAX_BATCH = 100; // so many events are seen twice at most: those of the frame it was killed in
    private static final PrintStream OUT = new PrintStream(System.out, false, StandardCharsets.UTF_8);

    private final String stream;
    private final Path file;
    private final List<String> filters;
    private String token;

    Resume(String stream, Path file, List<String> filters) throws IOException {
        this.stream = stream;
        this.file = file;
        this.filters = filters;
        token = Files.exists(file) ? Files.readString(file).strip() : "";
    }

    /** Begins at the earliest event there is, unless the file has a token. */
    @Override
    SubscriptionSpec spec() {
        SubscriptionSpec.Builder spec = SubscriptionSpec.newBuilder()
                .setStream(stream)
                .addAllFilters(filters)
                .setMaxBatch(MAX_BATCH);
        if (token.isEmpty()) {
            spec.getStartBuilder().setPreset(StartPreset.START_PRESET_EARLIEST);
        } else {
            spec.getStartBuilder().setResumeToken(token);
        }
        return spec.build();
    }

    @Override
    void take(Events events) throws IOException {
        for (ReceivedEvent received : events.getEventsList()) {
            Event event = received.getEvent();
            String text = event.hasData() ? "<" + event.getData().size() + " bytes>" : event.getText();
            OUT.print(received.getSequence() + " " + event.getTopic() + " " + text + "\n");
        }
        OUT.flush();
        // Not before everything in the frame is done: a token that is kept too early skips events after a crash, one that is
        // kept too late only repeats some.
        passed(events.getResumeToken());
    }

    /** Keeps a token. Whoever reads the file finds the old one or the new one, whole, even after a loss of power. */
    @Override
    void passed(String resumeToken) throws IOException {
        Path fresh = file.resolveSibling(file.getFileName() + ".new");
        try (FileChannel channel = FileChannel.open(
                fresh, StandardOpenOption.CREATE, StandardOpenOption.WRITE, StandardOpenOption.TRUNCATE_EXISTING)) {
            ByteBuffer line = StandardCharsets.UTF_8.encode(resumeToken + "\n");
            while (line.hasRemaining()) {
                channel.write(line);
            }
            channel.force(true);
        }
        Files.move(fresh, file, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
        token = resumeToken;
    }

    public static void main(String[] arguments) throws InterruptedException {
        List<String> words = new ArrayList<>(Arrays.asList(arguments));
        String server = "127.0.0.1:50051";
        if (words.size() > 1 && words.get(0).equals("--server")) {
            server = words.get(1);
            words.subList(0, 2).clear();
        }
        if (words.size() < 2) {
            System.err.println("usage: Resume [--server HOST:PORT] STREAM FILE [FILTER...]");
            System.exit(1);
        }
        try {
            new Resume(words.get(0), Path.of(words.get(1)), words.subList(2, words.size())).follow(server);
        } catch (Refused | IOException error) {
            System.err.println(error.getMessage());
            System.exit(1);
        }
    }
}
