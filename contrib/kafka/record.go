package kafka

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cachedpg/cachedpg/invalidation"
	"github.com/cachedpg/cachedpg/store"
)

// version is that of the values. One that is not known may mean more than its
// key says, so it is K4's. The key's form never changes, or a compacted topic
// would keep two records of a tag.
const version = 1

// value says which event a record is of.
type value struct {
	Version int       `json:"v"`
	ID      string    `json:"id,omitempty"`
	Time    time.Time `json:"time"`
}

var (
	errKey     = errors.New("its key is not a database and a tag")
	errValue   = errors.New("its value is not that of an event")
	errVersion = errors.New("its version is not known: update this program before those that produce")
)

// appendRecords appends the records of e to dst, a tag that is in seen left out:
// the newer record says nothing that the older does not.
func appendRecords(dst []*kgo.Record, e invalidation.Event, seen map[string]bool) ([]*kgo.Record, error) {
	if e.Source == "" || strings.Contains(e.Source, " ") {
		return dst, fmt.Errorf("cachedpg: kafka: event %q is of no database: its Source is %q", e.ID, e.Source)
	}
	v, err := json.Marshal(value{Version: version, ID: e.ID, Time: e.Time})
	if err != nil {
		return dst, fmt.Errorf("cachedpg: kafka: event %q: %w", e.ID, err)
	}
	for _, t := range e.Tags {
		key := e.Source + " " + hex.EncodeToString(store.AppendTag(nil, t))
		if !seen[key] {
			seen[key] = true
			dst = append(dst, &kgo.Record{Key: []byte(key), Value: v})
		}
	}
	return dst, nil
}

// parseRecord reads what appendRecords has written. With an error the source may
// be known all the same.
func parseRecord(r *kgo.Record) (invalidation.Event, error) {
	var e invalidation.Event
	source, text, ok := strings.Cut(string(r.Key), " ")
	if !ok || source == "" {
		return e, errKey
	}
	b, err := hex.DecodeString(text)
	if err != nil {
		return e, errKey
	}
	tag, ok := store.ParseTag(b)
	if !ok {
		return e, errKey
	}
	e.Source, e.Tags = source, []store.Tag{tag}
	if r.Value == nil { // somebody has deleted the key from a compacted topic; what it said may not have been read
		return e, nil
	}
	var v value
	switch err := json.Unmarshal(r.Value, &v); {
	case err != nil || v.Version == 0:
		return e, errValue
	case v.Version != version:
		return e, errVersion
	}
	e.ID, e.Time = v.ID, v.Time
	return e, nil
}
