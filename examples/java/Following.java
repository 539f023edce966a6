import com.google.protobuf.Duration;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Status.Code;
import io.grpc.StatusException;
import io.grpc.stub.BlockingClientCall;
import java.io.IOException;
import java.util.Set;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import sun.misc.Signal;
import switchyard.v1.Ended;
import switchyard.v1.Events;
import switchyard.v1.HubServiceGrpc;
import switchyard.v1.SessionRequest;
import switchyard.v1.SessionResponse;
import switchyard.v1.SubscriptionSpec;

/** One subscription that outlives the hub: opened again when the hub has gone away, and ended in good order on Ctrl-C. */
abstract class Following {
    private static final Set<Code> TRY_AGAIN = Set.of(Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED, Code.INTERNAL);
    private static final long ID = 1; // of the subscription: there is one in the session

    private BlockingClientCall<SessionRequest, SessionResponse> session;
    private final AtomicBoolean stopping = new AtomicBoolean();
    private int attempts;

    /** The hub has gone away, or asks to be called again later: after delayMs, if it said so. */
    @SuppressWarnings("serial")
    private static final class Away extends Exception {
        final long delayMs;

        Away(String reason, long delayMs) {
            super(reason);
            this.delayMs = delayMs;
        }
    }

    /** The hub refuses, and trying again does not help. */
    @SuppressWarnings("serial")
    static final class Refused extends Exception {
        Refused(String reason) {
            super(reason);
        }
    }

    /** What to subscribe to, asked for whenever a session begins. */
    abstract SubscriptionSpec spec();

    /** Handles an events frame. */
    abstract void take(Events events) throws IOException;

    /** Everything up to this token is handled, or was never meant for this subscription. */
    abstract void passed(String resumeToken) throws IOException;

    /** Returns after Ctrl-C, or when the hub has ended the subscription as asked. */
    void follow(String server) throws Refused, IOException, InterruptedException {
        Signal.handle(new Signal("INT"), signal -> stop());
        Signal.handle(new Signal("TERM"), signal -> stop());
        // A hub that vanishes without a word is noticed.
        ManagedChannel channel = Grpc.newChannelBuilder(server, InsecureChannelCredentials.create())
                .keepAliveTime(20, TimeUnit.SECONDS)
                .keepAliveTimeout(10, TimeUnit.SECONDS)
                .build();
        try {
            while (!stopped(0)) {
                try {
                    channel.resetConnectBackoff(); // the delay below is all the waiting there is
                    session(channel);
                    return;
                } catch (Away away) {
                    attempts++;
                    double backoffMs = Math.min(5_000, 100 * Math.pow(2, Math.min(attempts, 10)));
                    long delayMs = away.delayMs > 0
                            ? away.delayMs
                            : (long) (backoffMs * ThreadLocalRandom.current().nextDouble(0.5, 1));
                    System.err.printf("%s; again in %.1f s%n", away.getMessage(), delayMs / 1000.0);
                    stopped(delayMs);
                }
            }
        } finally {
            channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
        }
    }

    /** What is begun is finished first; asked twice, it is not. */
    private void stop() {
        if (stopping.getAndSet(true)) {
            Runtime.getRuntime().halt(130);
        }
        synchronized (this) {
            notifyAll();
            if (session != null) {
                SessionRequest.Builder request = SessionRequest.newBuilder().setRequestId(1);
                request.getUnsubscribeBuilder().setSubscriptionId(ID);
                send(request);
            }
        }
    }

    /** Whether it was told to stop, asked until it was or the time is over. */
    private synchronized boolean stopped(long timeoutMs) throws InterruptedException {
        long end = System.nanoTime() + timeoutMs * 1_000_000;
        for (long leftMs = timeoutMs; !stopping.get() && leftMs > 0; leftMs = (end - System.nanoTime()) / 1_000_000) {
            wait(leftMs);
        }
        return stopping.get();
    }

    private synchronized boolean open(ManagedChannel channel) {
        if (stopping.get()) {
            return false;
        }
        session = HubServiceGrpc.newBlockingV2Stub(channel).session();
        SessionRequest.Builder request = SessionRequest.newBuilder().setRequestId(1);
        request.getSubscribeBuilder().setSubscriptionId(ID).setSpec(spec());
        send(request);
        return true;
    }

    private void send(SessionRequest.Builder request) {
        try {
            session.write(request.build());
        } catch (InterruptedException | StatusException | IllegalStateException ended) {
            // The session has ended; reading it tells why.
        }
    }

    private void session(ManagedChannel channel) throws Away, Refused, IOException, InterruptedException {
        if (!open(channel)) {
            return;
        }
        long delayMs = 0;
        try {
            SessionResponse response;
            while ((response = session.read()) != null) {
                switch (response.getFrameCase()) {
                    case SUBSCRIBED -> {
                        attempts = 0;
                        System.err.println("subscribed");
                    }
                    case EVENTS -> take(response.getEvents());
                    case PROGRESS -> passed(response.getProgress().getResumeToken());
                    case DRAINING -> delayMs = millis(response.getDraining().getReconnectDelay());
                    case ERROR -> throw new Refused("refused: " + Refusal.describe(response.getError()));
                    case ENDED -> {
                        ended(response.getEnded());
                        return;
                    }
                    default -> {} // nothing that a subscriber must know
                }
            }
        } catch (StatusException error) {
            if (!TRY_AGAIN.contains(error.getStatus().getCode())) {
                throw new Refused("no session with the hub: " + Refusal.explain(error));
            }
            throw new Away(Refusal.explain(error), delayMs);
        } finally {
            session.cancel("done", null);
        }
        throw new Away("the hub closed the session", delayMs);
    }

    private static void ended(Ended ended) throws Away, Refused {
        if (ended.getStatus().getCode() == 0) {
            return;
        }
        if (!ended.getRetry().getRetry()) {
            throw new Refused("ended: " + Refusal.describe(ended.getStatus()));
        }
        throw new Away(Refusal.describe(ended.getStatus()), millis(ended.getRetry().getDelay()));
    }

    private static long millis(Duration duration) {
        return duration.getSeconds() * 1000 + duration.getNanos() / 1_000_000;
    }
}
