package core

import (
	"testing"

	"github.com/cachedpg/cachedpg/internal/config"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// Behind a pooler a question may come to another server, where everything is on disk (I19).
func TestAnotherServerSaysNothingOfWhatIsOnDisk(t *testing.T) {
	t.Parallel()
	other := pgtest.StartServer(t)
	f := harness.New(t, pgtest.Database(t), "cache_statement", harness.People)
	v := f.Beside("new")
	v.Fresh(harness.UserByID, 1)
	there, err := Open(*pgtest.Connect(t, other.DSN()).Config(), config.Config{})
	if err != nil {
		t.Fatal(err)
	}
	in, err := there.dial(f.Ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if (&Conn{link: &link{inner: in}}).onDisk(dbOf(v.DB).space()) {
		t.Error("another server has told that a commit is on disk")
	}
}
