package kafka

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// The values of Config.Mechanism. Others go into Config.Options.
const (
	Plain       = "plain"
	ScramSHA256 = "scram-sha-256"
	ScramSHA512 = "scram-sha-512"
)

// DefaultTimeout is Config.Timeout's default.
const DefaultTimeout = 5 * time.Second

// Config says how to reach a topic. Brokers and Topic are needed, Group for a
// Consumer too.
type Config struct {
	// Brokers are addresses host:port of which one has to answer.
	Brokers []string

	// Topic has to exist. It is best compacted and kept for some days
	// (cleanup.policy=compact,delete), with as many replicas as its loss is worth.
	Topic string

	// Group is the consumer group of a region: the Consumers of one store share
	// one, and no two stores may. With a store in process memory each Consumer has
	// a group of its own whose name begins so.
	Group string

	// TLS is for a cluster that is reached by TLS; nil is none.
	TLS *tls.Config

	// User and Password are those of SASL, by Mechanism (scram-sha-256).
	User, Password, Mechanism string

	// Timeout bounds a Send, and every question that is asked of a broker.
	// Zero is DefaultTimeout.
	Timeout time.Duration

	// OnError is told of what went wrong and is tried again, by one goroutine at
	// a time of each Consumer. It must not block.
	OnError func(error)

	// Options are given to franz-go behind those that follow from the rest.
	Options []kgo.Opt
}

// String returns the configuration without the password, and without what Options may hold.
func (c Config) String() string {
	password := ""
	if c.Password != "" {
		password = "…"
	}
	return fmt.Sprintf("{Brokers:%q Topic:%s Group:%s TLS:%t User:%s Password:%s Mechanism:%s Timeout:%v}",
		c.Brokers, c.Topic, c.Group, c.TLS != nil, c.User, password, c.Mechanism, c.Timeout)
}

// GoString returns what %#v prints, without the password.
func (c Config) GoString() string { return "kafka.Config" + c.String() }

// validate returns all that is wrong.
func (c Config) validate() error {
	var problems []error
	wrong := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("cachedpg: kafka: "+format, args...))
	}
	if len(c.Brokers) == 0 {
		wrong("Brokers is empty: give addresses, such as localhost:9092")
	}
	for _, b := range c.Brokers {
		if strings.TrimSpace(b) == "" || strings.Contains(b, "/") {
			wrong("Brokers: %q is no address: want host:port, without a scheme", b)
		}
	}
	if c.Topic == "" {
		wrong("Topic is empty: name the topic of the invalidation events")
	}
	if c.Timeout < 0 {
		wrong("Timeout=%v: must be positive", c.Timeout)
	}
	switch {
	case c.mechanism() == nil:
		wrong("Mechanism=%q: want %s, %s or %s; give others by Options", c.Mechanism, Plain, ScramSHA256, ScramSHA512)
	case c.User == "" && (c.Password != "" || c.Mechanism != ""):
		wrong("User is empty, and Password or Mechanism are not")
	}
	return errors.Join(problems...)
}

// mechanism returns how to log in; nil if that is not known.
func (c Config) mechanism() sasl.Mechanism {
	switch strings.ToLower(c.Mechanism) {
	case Plain:
		return plain.Auth{User: c.User, Pass: c.Password}.AsMechanism()
	case "", ScramSHA256:
		return scram.Auth{User: c.User, Pass: c.Password}.AsSha256Mechanism()
	case ScramSHA512:
		return scram.Auth{User: c.User, Pass: c.Password}.AsSha512Mechanism()
	}
	return nil
}

func (c Config) timeout() time.Duration {
	if c.Timeout == 0 {
		return DefaultTimeout
	}
	return c.Timeout
}

// client makes a client with opts, and then the user's.
func (c Config) client(opts ...kgo.Opt) (*kgo.Client, error) {
	all := []kgo.Opt{
		kgo.ClientID("cachedpg"),
		kgo.SeedBrokers(c.Brokers...),
		// Partitions that are added later are missed until this has passed.
		kgo.MetadataMaxAge(time.Minute),
		// What a failure changes is to be known before a Send gives up.
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.RetryBackoffFn(func(tries int) time.Duration { return min(minBackoff<<min(tries, 4), time.Second) }),
		kgo.DialTimeout(c.timeout()),
	}
	if c.TLS != nil {
		all = append(all, kgo.DialTLSConfig(c.TLS))
	}
	if c.User != "" {
		all = append(all, kgo.SASL(c.mechanism()))
	}
	cl, err := kgo.NewClient(append(append(all, opts...), c.Options...)...)
	if err != nil {
		return nil, fmt.Errorf("cachedpg: kafka: Options: %w", err)
	}
	return cl, nil
}
