import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.StatusException;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Iterator;
import java.util.List;
import java.util.concurrent.TimeUnit;
import switchyard.v1.Event;
import switchyard.v1.HubServiceGrpc;
import switchyard.v1.HubServiceGrpc.HubServiceBlockingV2Stub;
import switchyard.v1.PublishRequest;
import switchyard.v1.PublishResult;

/**
 * Publishes events to one topic: each TEXT is one event; without TEXT, each line of standard input is one.
 *
 * <pre>java -cp "$CP" Publish greetings.en hello "good morning"</pre>
 */
final class Publish {
    private static final int BATCH = 100;

    /** Publishes in batches and tells how it went; false when an event was refused. */
    private static boolean publish(HubServiceBlockingV2Stub hub, String topic, Iterator<String> texts)
            throws StatusException {
        int published = 0;
        int matched = 0;
        int refused = 0;
        while (texts.hasNext()) {
            PublishRequest.Builder batch = PublishRequest.newBuilder();
            while (texts.hasNext() && batch.getEventsCount() < BATCH) {
                batch.addEvents(Event.newBuilder().setTopic(topic).setText(texts.next()));
            }
            for (PublishResult result : hub.withDeadlineAfter(30, TimeUnit.SECONDS).publish(batch.build()).getResultsList()) {
                if (result.hasStatus()) {
                    refused++;
                    System.err.println("refused: " + Refusal.describe(result.getStatus()));
                } else {
                    published++;
                    matched += result.getMatched();
                }
            }
        }
        System.out.println("published " + published + ", matched " + matched);
        return refused == 0;
    }

    public static void main(String[] arguments) throws InterruptedException {
        System.setErr(new PrintStream(System.err, true, StandardCharsets.UTF_8));
        List<String> words = new ArrayList<>(Arrays.asList(arguments));
        String server = "127.0.0.1:50051";
        if (words.size() > 1 && words.get(0).equals("--server")) {
            server = words.get(1);
            words.subList(0, 2).clear();
        }
        if (words.isEmpty()) {
            System.err.println("usage: Publish [--server HOST:PORT] TOPIC [TEXT...]");
            System.exit(1);
        }
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        List<String> texts = words.subList(1, words.size());
        ManagedChannel channel = Grpc.newChannelBuilder(server, InsecureChannelCredentials.create()).build();
        boolean ok = false;
        try {
            HubServiceBlockingV2Stub hub = HubServiceGrpc.newBlockingV2Stub(channel);
            ok = publish(hub, words.get(0), texts.isEmpty() ? lines.lines().iterator() : texts.iterator());
        } catch (StatusException error) {
            System.err.println("publish failed: " + Refusal.explain(error));
        } finally {
            channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
        }
        System.exit(ok ? 0 : 1);
    }
}
