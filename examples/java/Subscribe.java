import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.stub.BlockingClientCall;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.concurrent.TimeUnit;
import sun.misc.Signal;
import switchyard.v1.Event;
import switchyard.v1.HubServiceGrpc;
import switchyard.v1.ReceivedEvent;
import switchyard.v1.SessionRequest;
import switchyard.v1.SessionResponse;
import switchyard.v1.SubscriptionSpec;

/**
 * Subscribes to topics over one Session and prints their events, or with --digest a digest of them at the end.
 *
 * <pre>java -cp "$CP" Subscribe 'greetings.*' 'stocks.>#10'</pre>
 */
final class Subscribe {
    private static final PrintStream OUT = new PrintStream(System.out, false, StandardCharsets.UTF_8);

    /** One subscription: what it asks for, and what it got. FILTER#N ends it after N events. */
    private static final class Subscription {
        final String filter;
        final long maxEvents;
        final MessageDigest sha256;
        long events;

        Subscription(String argument, long count) throws Exception {
            String[] parts = argument.split("#", 2);
            filter = parts[0];
            maxEvents = parts.length > 1 ? Long.parseLong(parts[1]) : count;
            sha256 = MessageDigest.getInstance("SHA-256");
        }

        SessionRequest command(long id) {
            SubscriptionSpec.Builder spec = SubscriptionSpec.newBuilder().addFilters(filter).setMaxEvents(maxEvents);
            SessionRequest.Builder request = SessionRequest.newBuilder().setRequestId(id);
            request.getSubscribeBuilder().setSubscriptionId(id).setSpec(spec);
            return request.build();
        }

        /** Counts an event and gives the line that tells of it. */
        String take(Event event) {
            String text = event.hasData() ? "<" + event.getData().size() + " bytes>" : event.getText();
            String line = event.getTopic() + " " + text + "\n";
            events++;
            sha256.update(line.getBytes(StandardCharsets.UTF_8));
            return line;
        }

        /** The line of JSON that --digest prints. A filter the hub accepted needs no escapes. */
        String summary() {
            String hex = HexFormat.of().formatHex(sha256.digest());
            return "{\"filter\": \"%s\", \"events\": %d, \"sha256\": \"%s\"}".formatted(filter, events, hex);
        }
    }

    /** Opens the subscriptions and returns when the last one has ended. */
    private static void follow(
            BlockingClientCall<SessionRequest, SessionResponse> session, List<Subscription> subscriptions, boolean digest)
            throws Exception {
        for (int i = 0; i < subscriptions.size(); i++) {
            session.write(subscriptions.get(i).command(i + 1));
        }
        session.halfClose(); // no more commands: the hub goes on delivering
        int opening = subscriptions.size();
        int running = opening;
        SessionResponse response;
        while ((response = session.read()) != null) {
            switch (response.getFrameCase()) {
                case SUBSCRIBED -> {
                    if (--opening == 0) {
                        System.err.println("ready");
                    }
                }
                case EVENTS -> {
                    Subscription subscription = subscriptions.get((int) response.getEvents().getSubscriptionId() - 1);
                    for (ReceivedEvent received : response.getEvents().getEventsList()) {
                        String line = subscription.take(received.getEvent());
                        if (!digest) {
                            OUT.print(line);
                        }
                    }
                    OUT.flush();
                }
                case GAP -> throw new Exception("gap: subscription " + response.getGap().getSubscriptionId() + " lost "
                        + response.getGap().getCount() + " events");
                case DRAINING -> System.err.println("draining");
                case ENDED -> {
                    if (response.getEnded().getStatus().getCode() != 0) {
                        throw new Exception("ended: " + Refusal.describe(response.getEnded().getStatus()));
                    }
                    running--;
                }
                case ERROR -> throw new Exception("error: " + Refusal.describe(response.getError()));
                default -> {} // nothing that a subscriber must know
            }
        }
        if (running > 0) {
            throw new Exception("the hub closed the session");
        }
    }

    public static void main(String[] arguments) throws Exception {
        String server = "127.0.0.1:50051";
        long count = 0;
        boolean digest = false;
        List<Subscription> subscriptions = new ArrayList<>();
        for (int i = 0; i < arguments.length; i++) {
            switch (arguments[i]) {
                case "--server" -> server = arguments[++i];
                case "--count" -> count = Long.parseLong(arguments[++i]); // end after so many events of every filter
                case "--digest" -> digest = true;
                default -> subscriptions.add(new Subscription(arguments[i], count));
            }
        }
        if (subscriptions.isEmpty()) {
            System.err.println("usage: Subscribe [--server HOST:PORT] [--count N] [--digest] FILTER...");
            System.exit(1);
        }
        ManagedChannel channel = Grpc.newChannelBuilder(server, InsecureChannelCredentials.create()).build();
        BlockingClientCall<SessionRequest, SessionResponse> session = HubServiceGrpc.newBlockingV2Stub(channel).session();
        Signal.handle(new Signal("INT"), signal -> session.cancel("Ctrl-C", null));
        int status = 0;
        try {
            follow(session, subscriptions, digest);
        } catch (StatusException error) {
            if (error.getStatus().getCode() != Status.Code.CANCELLED) { // else it was Ctrl-C
                System.err.println("no session with the hub: " + Refusal.explain(error));
                status = 1;
            }
        } catch (Exception told) {
            System.err.println(told.getMessage());
            status = 1;
        }
        if (status == 0 && digest) {
            subscriptions.forEach(subscription -> OUT.println(subscription.summary()));
        }
        OUT.flush();
        channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
        System.exit(status);
    }
}
