package feed

import (
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
