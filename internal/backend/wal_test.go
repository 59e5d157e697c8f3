package backend

import (
	"fmt"
	"strconv"
	"testing"
)

func TestPositionsOfTheLog(t *testing.T) {
	const file, page = 16 << 20, 8 << 10
	for insert, want := range map[uint64]uint64{
		file + 40:            file, // nothing stands behind the headers
		3*page + 24:          3 * page,
		3*page + 40:          3*page + 40, // the rest of a record
		file + page - 8:      file + page - 8,
		file:                 file,
		5*file + 7*page + 24: 5*file + 7*page,
	} {
		got, flushed, err := parsePosition(fmt.Sprint(insert, " 5 ", page, " ", file))
		if err != nil || got != want || flushed != 5 {
			t.Errorf("%d: got %d, %d, %v, want %d", insert, got, flushed, err, want)
		}
	}
	for _, answer := range []string{"", "1 2 3", "1 2 0 0", "a 2 8192 " + strconv.Itoa(file)} {
		if _, _, err := parsePosition(answer); err == nil {
			t.Errorf("%q: no error", answer)
		}
	}
}
