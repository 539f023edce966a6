import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.Code;
import com.google.rpc.ErrorInfo;
import com.google.rpc.Status;
import io.grpc.StatusException;
import io.grpc.protobuf.StatusProto;
import java.util.ArrayList;
import java.util.List;

/** Why the hub refused something, in one line. */
final class Refusal {
    private Refusal() {}

    /** The code, reason, field and text of a refusal. */
    static String describe(Status status) {
        List<String> words = new ArrayList<>(List.of(Code.forNumber(status.getCode()).name()));
        try {
            for (Any detail : status.getDetailsList()) {
                if (detail.is(ErrorInfo.class)) {
                    words.add(detail.unpack(ErrorInfo.class).getReason());
                } else if (detail.is(BadRequest.class)) {
                    detail.unpack(BadRequest.class).getFieldViolationsList().forEach(bad -> words.add(bad.getField()));
                }
            }
        } catch (InvalidProtocolBufferException malformed) {
            // What can be read of it still tells more than nothing.
        }
        return String.join(" ", words) + ": " + status.getMessage();
    }

    /** The same for a call that failed; the whole status of a refusal travels in a trailer. */
    static String explain(StatusException error) {
        Status status = StatusProto.fromThrowable(error);
        if (status.getDetailsCount() > 0) {
            return describe(status);
        }
        Throwable cause = error.getStatus().getCause();
        return error.getMessage() + (cause == null ? "" : ": " + cause.getMessage());
    }
}
