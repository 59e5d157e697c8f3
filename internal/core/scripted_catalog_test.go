package core

import (
	"database/sql/driver"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachedpg/cachedpg/internal/patience"
	"github.com/cachedpg/cachedpg/keying"
)

// Who reads waits for no catalog, and who begins a transaction for the first one, for a bounded time.
func TestNoReadWaitsForTheFirstCatalog(t *testing.T) {
	play(t, func(s *script) {
		s.d.readPatience = 0
		reader, writer := s.session(), s.session()
		s.Holdup.Set()
		began := time.Now()
		for range 3 {
			reader.selects("ann").gets("ann")
		}
		if waited := time.Since(began); waited != 0 {
			s.Errorf("reads waited for %v", waited)
		}
		if got := s.d.stats.bypasses[keying.CatalogUnavailable].Load(); got != 3 {
			s.Errorf("%d bypasses, want 3", got)
		}
		for _, want := range []time.Duration{patience.Load, patience.Load} { // counted from when the load began
			writer.Mock.ExpectBegin()
			writer.Mock.ExpectRollback()
			tx, err := writer.Conn.Begin(s.Context(), driver.TxOptions{})
			if err != nil {
				s.Fatal(err)
			}
			if err := tx.Rollback(); err != nil {
				s.Fatal(err)
			}
			if waited := time.Since(began); waited != want {
				s.Errorf("a transaction began after %v, want %v", waited, want)
			}
		}
		s.Holdup.Let()
		synctest.Wait()
		reader.selects("ann").gets("ann")
		reader.gets("ann")
	})
}

// After a change of the schema readers ask PostgreSQL until the new one is there.
func TestAChangeOfTheSchemaStopsNoReaders(t *testing.T) {
	play(t, func(s *script) {
		reader, next, other := s.session(), s.session(), s.session()
		reader.selects("ann").gets("ann")
		reader.gets("ann")
		s.d.readPatience = 0
		s.Holdup.Set()
		other.Mock.ExpectExec(ddl).WillReturnResult(driver.ResultNoRows)
		if _, err := other.Conn.Exec(s.Context(), ddl, nil); err != nil {
			s.Fatal(err)
		}
		began := time.Now()
		for range 3 {
			next.selects("ann").gets("ann")
			reader.selects("ann").gets("ann")
		}
		if waited := time.Since(began); waited != 0 {
			s.Errorf("they waited for %v", waited)
		}
		if n := reader.Reanalysed; n != 0 {
			s.Errorf("what was prepared was analysed %d times for a catalog that is not there", n)
		}
		s.Holdup.Let()
		synctest.Wait()
		reader.selects("ann").gets("ann")
		reader.gets("ann")
		if n := reader.Reanalysed; n != 1 {
			s.Errorf("what was prepared was analysed %d times for a new catalog", n)
		}
	})
}
