package versions

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
)

// A run that was meant for one version must not pass on another.
func TestTheServerIsTheOneThatWasAskedFor(t *testing.T) {
	t.Parallel()
	asked, version := os.Getenv("CACHEDPG_POSTGRES"), harness.ServerVersion(t)
	t.Logf("PostgreSQL %d", version)
	switch major, _, _ := strings.Cut(asked, "."); {
	case asked == "newest":
		if version < 18 {
			t.Errorf("the newest PostgreSQL is %d", version)
		}
	case asked != "" && major != strconv.Itoa(version):
		t.Errorf("got PostgreSQL %d, asked for %s", version, asked)
	}
}
