package kafka

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cachedpg/cachedpg/invalidation"
	"github.com/cachedpg/cachedpg/store"
)

func TestARecordIsATagOfAnEvent(t *testing.T) {
	e := invalidation.Event{Source: "7/00000001/5", ID: "outbox/1", Time: time.Unix(1, 2).UTC(), Tags: []store.Tag{
		{Kind: store.TagSchema}, {Kind: store.TagCatalog}, {Relation: 1 << 31, Kind: store.TagRow, Index: 1<<32 - 1, Value: 1<<64 - 1}}}
	records, err := appendRecords(nil, e, map[string]bool{})
	if err != nil || len(records) != 3 {
		t.Fatalf("%d records, %v", len(records), err)
	}
	for i, r := range records {
		got, err := parseRecord(r)
		want := e
		want.Tags = e.Tags[i : i+1]
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
	// Both are what other versions of this program, and kafka-console-consumer, see.
	if got, want := string(records[2].Key), "7/00000001/5 8000000003ffffffffffffffffffffffff"; got != want {
		t.Errorf("got the key %q, want %q", got, want)
	}
	if got, want := string(records[2].Value), `{"v":1,"id":"outbox/1","time":"1970-01-01T00:00:01.000000002Z"}`; got != want {
		t.Errorf("got the value %q, want %q", got, want)
	}
}

func TestEqualTagsOfOneSendAreOneRecord(t *testing.T) {
	seen := map[string]bool{}
	table := store.Tag{Relation: 5, Kind: store.TagTable}
	var records []*kgo.Record
	for _, e := range []invalidation.Event{
		{Source: "a/1/1", ID: "1", Tags: []store.Tag{table, table}},
		{Source: "a/1/1", ID: "2", Tags: []store.Tag{table}},
		{Source: "b/1/1", ID: "3", Tags: []store.Tag{table}}, // another database's
	} {
		var err error
		if records, err = appendRecords(records, e, seen); err != nil {
			t.Fatal(err)
		}
	}
	if len(records) != 2 {
		t.Errorf("got %d records, want 2", len(records))
	}
}

func TestAnEventWithoutADatabaseIsNotSent(t *testing.T) {
	for _, source := range []string{"", "with a space"} {
		if _, err := appendRecords(nil, invalidation.Event{Source: source, Tags: []store.Tag{{}}}, map[string]bool{}); err == nil {
			t.Errorf("source %q is taken", source)
		}
	}
}

func TestRecordsThatAreNone(t *testing.T) {
	const key = "7/00000001/5 0000000500000000000000000000000000"
	tests := []struct {
		key, value string
		err        error
		source     string
	}{
		{"", `{"v":1}`, errKey, ""},
		{"7/00000001/5", `{"v":1}`, errKey, ""},
		{" 0000000500000000000000000000000000", `{"v":1}`, errKey, ""},
		{"7/00000001/5 00", `{"v":1}`, errKey, ""},
		{"7/00000001/5 zz", `{"v":1}`, errKey, ""},
		{key + "00", `{"v":1}`, errKey, ""},
		{key, "", errValue, "7/00000001/5"},
		{key, "null", errValue, "7/00000001/5"},
		{key, `{"v":"1"}`, errValue, "7/00000001/5"},
		{key, `{"v":1,"time":"yesterday"}`, errValue, "7/00000001/5"},
		{key, `{"v":-1}`, errVersion, "7/00000001/5"},
		{key, `{"v":2}`, errVersion, "7/00000001/5"},
		{key, `{"v":1,"more":true}`, nil, "7/00000001/5"},
	}
	for _, tt := range tests {
		e, err := parseRecord(&kgo.Record{Key: []byte(tt.key), Value: []byte(tt.value)})
		if !errors.Is(err, tt.err) || e.Source != tt.source {
			t.Errorf("%q %q: got source %q, %v, want %q, %v", tt.key, tt.value, e.Source, err, tt.source, tt.err)
		}
	}
	if e, err := parseRecord(&kgo.Record{Key: []byte(key)}); err != nil || len(e.Tags) != 1 {
		t.Errorf("a deleted key: %+v, %v", e, err)
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add([]byte("7/00000001/5 0000000500000000000000000000000000"), []byte(`{"v":1,"id":"outbox/1","time":"1970-01-01T00:00:01Z"}`))
	f.Add([]byte("7/00000001/5 00000005ff00000000000000000000000000"), []byte(`{"v":1}`)) // a kind that is not known
	f.Add([]byte("7/00000001/5 "), []byte(`{`))
	f.Add([]byte{0xff}, []byte(nil))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		e, err := parseRecord(&kgo.Record{Key: key, Value: value})
		if err != nil {
			return
		}
		if e.Source == "" || len(e.Tags) != 1 {
			t.Fatalf("%q %q: %+v", key, value, e)
		}
		// What was read and sent again says the same.
		records, err := appendRecords(nil, e, map[string]bool{})
		if err != nil {
			t.Skip() // a time that JSON does not take back
		}
		if again, err := parseRecord(records[0]); err != nil || again.Source != e.Source || again.Tags[0] != e.Tags[0] {
			t.Fatalf("%+v became %+v, %v", e, again, err)
		}
	})
}
