package redis

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/cachedpg/cachedpg/internal/redistest"
)

// printed is what go-redis would have printed on stderr; TestMain has it kept.
var printed lines

type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) Printf(_ context.Context, format string, values ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, fmt.Sprintf(format, values...))
}

func (l *lines) with(part string) (found []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.all {
		if strings.Contains(line, part) {
			found = append(found, line)
		}
	}
	return found
}

// The store says why it cannot be used, so go-redis need not say it at every try.
func TestAServerThatIsAwayIsNotPrintedOf(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	address := server.Addr()
	s := openURL(t, server.URL(), Options{})
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	server.Kill()
	for range 3 {
		err := s.Check(t.Context())
		if err == nil || !strings.Contains(err.Error(), "dial tcp "+address) && !strings.Contains(err.Error(), "EOF") && !strings.Contains(err.Error(), "reset") {
			t.Errorf("Check gives %v", err)
		}
	}
	if found := printed.with(address); len(found) > 0 {
		t.Errorf("go-redis prints %q", found)
	}
}

// What a server must be told first is no error of it.
func TestAHealthyServerHasNoErrors(t *testing.T) {
	t.Parallel()
	s := openURL(t, redistest.Start(t).URL(), Options{})
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.renew()
	if got := s.SharedStats(); got.Errors != 0 || got.Trips == 0 {
		t.Errorf("%+v", got)
	}
}
