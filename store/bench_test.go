package store

import (
	"fmt"
	"testing"
	"time"
)

func BenchmarkMemoryHit(b *testing.B) {
	for _, ttl := range []time.Duration{0, time.Hour} {
		for _, n := range []int{1, 10_000} {
			b.Run(fmt.Sprintf("ttl=%v/entries=%d", ttl, n), func(b *testing.B) {
				m := NewMemory(Options{Bytes: 1 << 30})
				keys := make([]Key, n)
				for i := range keys {
					keys[i] = testKey(i)
					fill(b, m, keys[i], testTags(i), testEntry(100), ttl)
				}
				tags, stamps := testTags(0), make([]Stamp, 3)
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					if i++; i == n {
						i = 0
					}
					if _, outcome, _ := m.Lookup(ctx, keys[i], tags, stamps); outcome != Hit {
						b.Fatal(outcome)
					}
				}
			})
		}
	}
}

func BenchmarkMemoryHitParallel(b *testing.B) {
	m := NewMemory(Options{})
	key, tags := testKey(1), testTags(1)
	fill(b, m, key, tags, testEntry(100), 0)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		stamps := make([]Stamp, 3)
		for pb.Next() {
			m.Lookup(ctx, key, tags, stamps)
		}
	})
}

func BenchmarkMemoryMissAndFill(b *testing.B) {
	m := NewMemory(Options{Bytes: 16 << 20})
	e := testEntry(100)
	stamps := make([]Stamp, 3)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		key, tags := testKey(i), testTags(i)
		m.Lookup(ctx, key, tags, stamps)
		m.Fill(ctx, key, tags, stamps, e, 0)
	}
}

func BenchmarkMemoryWrite(b *testing.B) {
	m := NewMemory(Options{})
	tags := testTags(1)[1:]
	b.ReportAllocs()
	for b.Loop() {
		m.Intend(ctx, WriterID{1}, tags)
		m.Release(ctx, WriterID{1}, tags)
	}
}
