package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// check asks the brokers for the topic.
func (c Config) check(ctx context.Context, cl *kgo.Client) error {
	asking, cancel := context.WithTimeout(ctx, c.timeout())
	defer cancel()
	request := kmsg.NewPtrMetadataRequest() // kadm would answer from what the client knows
	topic := kmsg.NewMetadataRequestTopic()
	topic.Topic = &c.Topic
	request.Topics = append(request.Topics, topic)
	response, err := request.RequestWith(asking, cl)
	if err == nil {
		err = kerr.UnknownTopicOrPartition
		for _, t := range response.Topics {
			err = kerr.ErrorForCode(t.ErrorCode)
		}
	}
	if err == nil {
		return nil
	}
	return c.explain(ctx, cl, err)
}

// ours is an error that is not of Kafka, and came by way of franz-go.
type ours struct{ error }

// explain adds to an error of franz-go what the user can do about it.
func (c Config) explain(ctx context.Context, cl *kgo.Client, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("cachedpg: kafka: topic %s: %w", c.Topic, context.Cause(ctx))
	}
	if own := (ours{}); errors.As(err, &own) {
		return own.error
	}
	if timedOut(err) {
		// That it took too long says nothing; what a broker is asked now may.
		asking, cancel := context.WithTimeout(ctx, c.timeout()/2)
		defer cancel()
		if ping := cl.Ping(asking); ping != nil {
			err = errors.Join(err, ping)
		}
	}
	return fmt.Errorf("cachedpg: kafka: topic %s: %s: %w", c.Topic, c.remedy(err), err)
}

func timedOut(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, kgo.ErrRecordTimeout) || errors.Is(err, kgo.ErrRecordRetries)
}

// remedy says what helps against err.
func (c Config) remedy(err error) string {
	var closed *kgo.ErrFirstReadEOF
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID):
		return fmt.Sprintf("it does not exist: kafka-topics.sh --create --topic %s --partitions 6 --replication-factor 3"+
			" --config cleanup.policy=compact,delete --config min.insync.replicas=2", c.Topic)
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return "the user lacks the right: it needs DESCRIBE on the topic, WRITE to produce, READ to consume"
	case errors.Is(err, kerr.GroupAuthorizationFailed):
		return fmt.Sprintf("the user lacks the right: it needs READ on the group %s, and with a store in process memory on all that begin so", c.Group)
	case errors.Is(err, kerr.ClusterAuthorizationFailed):
		return "the user lacks the right IDEMPOTENT_WRITE on the cluster, which brokers before 3.0 ask for"
	case errors.Is(err, kerr.SaslAuthenticationFailed), errors.Is(err, kerr.UnsupportedSaslMechanism), errors.Is(err, kerr.IllegalSaslState):
		return "the broker refuses the login: check User, Password and Mechanism"
	case errors.Is(err, kerr.NotEnoughReplicas), errors.Is(err, kerr.NotEnoughReplicasAfterAppend):
		return "too few replicas are in sync: see the topic's min.insync.replicas, and which brokers are down"
	case errors.Is(err, kerr.OffsetOutOfRange):
		return "records were deleted before they were read, so everything is invalidated: raise the topic's retention.ms"
	case errors.Is(err, kerr.MessageTooLarge):
		return "a record is too large: raise the topic's max.message.bytes"
	case errors.As(err, &closed), errors.Is(err, io.EOF):
		return "the broker hung up: does it ask for TLS, or not? If it asks for SASL, check User, Password and Mechanism"
	case strings.Contains(err.Error(), "tls:"), strings.Contains(err.Error(), "x509:"):
		return "TLS fails: check the certificates, and that the address is one of TLS"
	case timedOut(err), strings.Contains(err.Error(), "dial"):
		return "no broker of " + strings.Join(c.Brokers, ", ") + " answers: is one running, and reachable at the address that it advertises?"
	}
	return "the broker refuses"
}
