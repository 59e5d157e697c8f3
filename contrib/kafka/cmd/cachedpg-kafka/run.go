package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/contrib/kafka"
	"github.com/cachedpg/cachedpg/invalidation"
)

// produce sends the database's events to the topic.
func produce(ctx context.Context, o *options, stderr io.Writer) error {
	db, err := o.open()
	if err != nil {
		return err
	}
	defer db.Close()
	p, err := kafka.NewProducer(o.kafka)
	if err != nil {
		return misused("produce: %s", trim(err))
	}
	defer p.Close()
	if err := p.Check(ctx); err != nil {
		return err
	}
	tell := once(stderr)
	if o.from == "outbox" {
		return cachedpg.Relay(ctx, db, cachedpg.RelayOptions{Sink: p, Batch: o.batch, Interval: o.interval, Problem: tell})
	}
	return cachedpg.Follow(ctx, db, invalidation.SinkFunc(func(ctx context.Context, events []invalidation.Event) error {
		err := p.Send(ctx, events)
		if err != nil && ctx.Err() == nil {
			tell(err)
		}
		return err
	}))
}

// consume applies the topic's events to the region's store.
func consume(ctx context.Context, o *options, stderr io.Writer) error {
	db, err := o.open()
	if err != nil {
		return err
	}
	defer db.Close()
	o.kafka.OnError = once(stderr)
	c, err := kafka.NewConsumer(o.kafka)
	if err != nil {
		return misused("consume: %s", trim(err))
	}
	if err := c.Check(ctx); err != nil {
		return err
	}
	return c.Run(ctx, db)
}

// once returns a function that prints errors, one that is as the last one was
// left out: what is tried again is told once.
func once(w io.Writer) func(error) {
	var last string
	return func(err error) {
		if text := err.Error(); text != last {
			last = text
			fmt.Fprintln(w, text)
		}
	}
}

// trim takes the project's name off an error that is printed behind it.
func trim(err error) string { return strings.ReplaceAll(err.Error(), "cachedpg: ", "") }
