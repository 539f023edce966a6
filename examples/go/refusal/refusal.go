// Package refusal reads why the hub refused something, and how long it asks to wait.
package refusal

import (
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
)

// Describe gives the code, reason, field and text of a refusal, in one line.
func Describe(refusal *status.Status) string {
	words := []string{code.Code(refusal.Code()).String()}
	for _, detail := range refusal.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			words = append(words, detail.Reason)
		case *errdetails.BadRequest:
			for _, violation := range detail.FieldViolations {
				words = append(words, violation.Field)
			}
		}
	}
	return strings.Join(words, " ") + ": " + refusal.Message()
}

// Delay is the wait before the next attempt that the hub asks for; 0 if it does not say.
func Delay(refusal *status.Status) time.Duration {
	for _, detail := range refusal.Details() {
		if retry, ok := detail.(*errdetails.RetryInfo); ok {
			return retry.RetryDelay.AsDuration()
		}
	}
	return 0
}
