package precision

import (
	"flag"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/internal/harness/outside"
)

func TestMain(m *testing.M) { outside.Main(m) }

var (
	operations = flag.Int("precision.operations", 400, "reads and writes of each run of TestPrecision that are counted; half as many come before, to fill the cache")
	shares     = flag.String("precision.writes", "30", "shares of writes in percent, with commas; a run with each")
	seedFlag   = flag.Uint64("precision.seed", 0, "seed of TestPrecision; 0 takes one from the clock")
	jsonFile   = flag.String("precision.json", "", "file that the figures of TestPrecision are written to; a relative name is one in this folder")
)

func newSeed() uint64 {
	if *seedFlag != 0 {
		return *seedFlag
	}
	return uint64(time.Now().UnixNano())
}
