package durability

import (
	"testing"

	"github.com/cachedpg/cachedpg/internal/harness/outside"
)

func TestMain(m *testing.M) { outside.Main(m) }
