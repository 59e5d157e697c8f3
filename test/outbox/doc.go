// Package outbox tests the events that commits write, and the relay, which marks for writers that are cut off from the
// store and delivers the events to a sink.
package outbox
