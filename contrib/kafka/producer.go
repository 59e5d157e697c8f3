package kafka

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cachedpg/cachedpg/invalidation"
)

// Producer is a Sink that sends events to a topic. It is safe for concurrent use.
type Producer struct {
	config Config
	client *kgo.Client

	events, records, failed atomic.Int64
}

var _ invalidation.Sink = (*Producer)(nil)

// ProducerStats counts what a Producer did since it was made.
type ProducerStats struct {
	Events  int64 // acknowledged
	Records int64 // acknowledged: a tag of an event each, one for equal tags of one Send
	Errors  int64 // Sends that failed
}

// NewProducer makes a Producer, and does not ask a broker yet: Check does. The
// caller closes it.
func NewProducer(c Config) (*Producer, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	client, err := c.client(
		kgo.DefaultProduceTopic(c.Topic),
		kgo.RequiredAcks(kgo.AllISRAcks()), // K1
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
		kgo.ProducerLinger(0), // Send has all its records at once; to wait for more is to be late
		kgo.RecordDeliveryTimeout(c.timeout()),
		kgo.RecordRetries(5), // about three seconds, so that the broker's error is told, and not a timeout
		kgo.ProduceRequestTimeout(c.timeout()),
		// A Send ends in time also if a broker has the records and does not answer.
		// They are sent again then, which harms nobody.
		kgo.AllowIdempotentProduceCancellation(),
	)
	if err != nil {
		return nil, err
	}
	return &Producer{config: c, client: client}, nil
}

// Check asks a broker for the topic. An error names the remedy.
func (p *Producer) Check(ctx context.Context) error { return p.config.check(ctx, p.client) }

// Send produces events, and returns when all in-sync replicas have them or one
// of them is not to be had: then all are to be sent again.
func (p *Producer) Send(ctx context.Context, events []invalidation.Event) error {
	seen := make(map[string]bool)
	var records []*kgo.Record
	for _, e := range events {
		var err error
		if records, err = appendRecords(records, e, seen); err != nil {
			p.failed.Add(1)
			return err
		}
	}
	sending, cancel := context.WithTimeout(ctx, p.config.timeout())
	defer cancel()
	if err := p.produce(sending, records); err != nil {
		p.failed.Add(1)
		if errors.Is(err, kerr.UnknownTopicID) { // the topic was made anew, and the client holds on to the old one
			p.client.PurgeTopicsFromProducing(p.config.Topic)
		}
		return p.config.explain(ctx, p.client, err)
	}
	p.events.Add(int64(len(events)))
	p.records.Add(int64(len(records)))
	return nil
}

// produce returns when the client is done with all records, or ctx ends. It does
// not return at the first error: what is left of this Send in a partition would
// fail, and take with it what the next Send has there.
func (p *Producer) produce(ctx context.Context, records []*kgo.Record) (failed error) {
	results := make(chan error, len(records))
	for _, r := range records {
		p.client.Produce(ctx, r, func(_ *kgo.Record, err error) { results <- err })
	}
	for range records {
		select {
		case err := <-results:
			if failed == nil {
				failed = err
			}
		case <-ctx.Done():
			if failed == nil {
				failed = ctx.Err()
			}
			return failed
		}
	}
	return failed
}

// Stats returns what the Producer has counted.
func (p *Producer) Stats() ProducerStats {
	return ProducerStats{Events: p.events.Load(), Records: p.records.Load(), Errors: p.failed.Load()}
}

// Close ends the Producer. A Send that is under way fails.
func (p *Producer) Close() { p.client.Close() }
