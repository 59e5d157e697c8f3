package behind

import (
	"encoding/json"
	"math"
	"reflect"
	"testing"
	"time"
)

func TestArgumentsComeOutOfTheQueueAsTheyWentIn(t *testing.T) {
	zone := time.FixedZone("", -3600)
	for _, v := range []any{nil, int64(math.MinInt64), 7, int32(-1), int16(3), true, false, math.Inf(-1), math.Copysign(0, -1), "", "a\xff\x00b", []byte(nil), []byte{}, []byte{0, 255},
		[16]byte{1, 2}, time.Date(2026, 1, 2, 3, 4, 5, 999999999, time.UTC), time.Date(1, 1, 1, 0, 0, 0, 1, zone), time.Time{}} {
		a, ok := encodeArg(v)
		if !ok {
			t.Fatalf("%T has no form", v)
		}
		text, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		var b wireArg
		if err := json.Unmarshal(text, &b); err != nil {
			t.Fatal(err)
		}
		got, ok := b.value()
		if at, isTime := v.(time.Time); isTime && ok {
			then := got.(time.Time)
			_, o1 := at.Zone()
			_, o2 := then.Zone()
			ok = then.Equal(at) && o1 == o2
		} else {
			ok = ok && reflect.DeepEqual(got, v)
		}
		if !ok {
			t.Errorf("%#v comes out as %#v", v, got)
		}
	}
	type own int
	for _, v := range []any{own(1), []string{"a"}, &struct{}{}, uint64(1)} {
		if _, ok := encodeArg(v); ok {
			t.Errorf("%T is queued, and would come out as something else", v)
		}
	}
}

func TestBytesInTheQueueThatAreNoWriteAreRefused(t *testing.T) {
	for _, payload := range []string{"", "x", "{}", `{"f":2}`, `{"f":1,"a":[{"t":"own"}]}`, `{"f":1,"a":[{"t":"uuid","b":"AA=="}]}`, `{"f":1,"a":[{"t":"time","u":9999999999}]}`} {
		if w, err := Decode(payload); err == nil {
			t.Errorf("%s: %+v", payload, w)
		}
	}
}
