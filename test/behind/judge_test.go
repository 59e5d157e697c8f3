package behind

import (
	"encoding/base64"
	encodingjson "encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	goredis "github.com/redis/go-redis/v9"

	"github.com/cachedpg/cachedpg"
	"github.com/cachedpg/cachedpg/internal/behind"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/internal/inside"
	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
)

// planted is an entry as somebody could make it who knows the format, and not the keys.
func planted(f *harness.Fixture, sql string, settings map[string]string, args ...any) string {
	f.Helper()
	of := behind.SettingsOf(inside.Session(f.Via.DB))
	for name, value := range settings {
		of[name] = value
	}
	raw, err := encodingjson.Marshal(of)
	if err != nil {
		f.Fatal(err)
	}
	payload, ok := behind.Entry{SQL: sql, Mode: int32(pgx.QueryExecModeCacheStatement), Settings: string(raw), Args: args}.Encode()
	if !ok {
		f.Fatalf("%T", args)
	}
	return payload
}

// plantIn puts an entry into the stream, behind all that were queued.
func plantIn(f *harness.Fixture, r *redistest.Server, payload string) {
	f.Helper()
	name := inside.Queue(f.Via.DB).Store().QueueName()
	server, err := r.Client().HGet(f.Ctx, name+":owner", "server").Result()
	if err != nil {
		f.Fatal(err)
	}
	number, err := r.Client().HIncrBy(f.Ctx, name+":owner", "given", 1).Result()
	if err != nil {
		f.Fatal(err)
	}
	values := []any{"w", payload, "n", number, "s", server}
	if err := r.Client().XAdd(f.Ctx, &goredis.XAddArgs{Stream: name, Values: values}).Err(); err != nil {
		f.Fatal(err)
	}
}

// Whoever can write to Redis runs nothing but what a process could have queued, and stops nothing.
func TestWhatIsPlantedInTheQueueDoesNotRun(t *testing.T) {
	queueing(t, func(f *harness.Fixture, r *redistest.Server) {
		f.Past("CREATE TABLE secrets (id int PRIMARY KEY, n int); INSERT INTO secrets VALUES (1, 0)")
		role := roleOf(f)
		makeRole(f, role)
		f.Cleanup(func() { f.Past("DROP OWNED BY " + role + "; DROP ROLE " + role) })
		f.Again(readHit, 1)
		f.Exec(countHit, 1)
		f.Drained()
		for _, entry := range []string{
			planted(f, "COMMIT", nil),
			planted(f, "ROLLBACK", nil),
			planted(f, "COMMIT; UPDATE secrets SET n = 1 WHERE id = 1", nil),
			planted(f, "UPDATE secrets SET n = 1 WHERE id = 1", nil),
			planted(f, "UPDATE hits SET n = 7 WHERE id = 1; UPDATE secrets SET n = 1 WHERE id = 1", nil),
			planted(f, "UPDATE hits SET n = (SELECT 7 FROM secrets) WHERE id = 1", nil),
			planted(f, "UPDATE hits SET n = 7", nil),
			planted(f, "UPDATE cachedpg.queue SET position = '9999999999999-0' WHERE stream = 'x'", nil),
			planted(f, "DROP TABLE secrets", nil),
			planted(f, "SELECT pg_catalog.set_config('role', 'none', false)", nil),
			planted(f, "COPY hits TO PROGRAM 'true'", nil),
			planted(f, "UPDATE hits SET n = 7 WHERE id = $1", map[string]string{"role": role}, 1),
			planted(f, "UPDATE hits SET n = 7 WHERE id = $1", map[string]string{"role": "x'; DROP TABLE secrets; --"}, 1),
			planted(f, "UPDATE hits SET n = 7 WHERE id = $1", map[string]string{"session_replication_role": "replica"}, 1),
			planted(f, "UPDATE hits SET n = 7 WHERE id = $1", map[string]string{"a', 'b', true); DROP TABLE secrets; --": "1"}, 1),
			planted(f, "UPDATE hits SET n = 7 WHERE id = $1", map[string]string{"standard_conforming_strings": "off"}, 1),
			planted(f, "UPDATE hits SET n = 7 WHERE id = $1", map[string]string{"client_encoding": "SJIS"}, 1),
			`{"f":1,"q":"` + base64.StdEncoding.EncodeToString([]byte("UPDATE hits SET n = 7 WHERE id = 1")) + `","m":77,"s":{}}`,
		} {
			dead := cachedpg.StatsOf(f.DB).Queue.Dead
			plantIn(f, r, entry)
			f.Exec(countHit, 2)
			f.Drained()
			if got := cachedpg.StatsOf(f.DB).Queue.Dead - dead; got != 1 {
				f.Errorf("%d are dead, want one: %s", got, entry)
			}
			if got := inPostgres(f, "SELECT (SELECT n FROM hits WHERE id = 1), n FROM secrets"); got != "1 0" {
				f.Fatalf("it ran, and left %s: %s", got, entry)
			}
		}
		f.Fresh(readHit, 2).Is("18")
	})
}

// A process applies what others queue of tables that it has no policy for itself.
func TestAProcessOfAnotherPolicyRefusesNothingOfOthers(t *testing.T) {
	queueing(t, func(f *harness.Fixture, _ *redistest.Server) {
		other := f.Process("other", "cache_policy=others:write-behind")
		other.Known("SELECT n FROM others WHERE id = 1")
		f.Exec(countHit, 1)
		f.Drained()
		for range 20 {
			f.Exec(countHit, 1)
			if !queues(other, "UPDATE others SET n = n + 1 WHERE id = 1") {
				f.Fatal("not queued")
			}
		}
		f.Drained()
		other.Drained()
		if got := inPostgres(f, "SELECT h.n, o.n FROM hits h, others o WHERE h.id = 1"); got != "21 20" {
			f.Errorf("got %s, want 21 20", got)
		}
		for _, v := range []harness.Via{f.Via, other} {
			if q := cachedpg.StatsOf(v.DB).Queue; q.Dead != 0 {
				f.Errorf("%+v", q)
			}
		}
	})
}

// With keys an entry is good for one place in one queue.
func TestASealedEntryIsGoodForItsPlaceOnly(t *testing.T) {
	sealedQueue(t, newKey(1), func(f *harness.Fixture, r *redistest.Server) {
		f.Exec(countHit, 1)
		held := heldQueue(f)
		stream := inside.Queue(f.Via.DB).Store().QueueName()
		for id := 1; id < 4; id++ {
			f.Exec("UPDATE hits SET n = n * 10 + $2 WHERE id = $1", 1, id)
		}
		entries, err := r.Client().XRange(f.Ctx, stream, "-", "+").Result()
		if err != nil || len(entries) != 3 {
			t.Fatalf("%d entries, %v", len(entries), err)
		}
		for _, e := range entries {
			if strings.Contains(fmt.Sprint(e.Values), "UPDATE") {
				f.Error("the text of a write is in Redis")
			}
		}
		values := func(i int, changes ...any) []any {
			v := []any{"w", entries[i].Values["w"], "n", entries[i].Values["n"], "s", entries[i].Values["s"]}
			for i := 0; i < len(changes); i += 2 {
				v[slices.Index(v, changes[i])+1] = changes[i+1]
			}
			return v
		}
		add := func(values []any) {
			f.Helper()
			if err := r.Client().XAdd(f.Ctx, &goredis.XAddArgs{Stream: stream, Values: values}).Err(); err != nil {
				f.Fatal(err)
			}
		}
		add(values(0))                                                                                                // once more
		add(values(1, "n", "5"))                                                                                      // as the next one
		add([]any{"w", planted(f, "UPDATE hits SET n = 0 WHERE id = 1", nil), "n", "5", "s", entries[0].Values["s"]}) // not sealed
		held()
		f.Fresh(readHit, 1).Is("1123")
		f.Drained()
		if q := cachedpg.StatsOf(f.DB).Queue; q.Dead != 3 || q.Lost != 0 {
			f.Errorf("%+v", q)
		}
		add(values(2)) // when it was applied and taken out
		f.Exec(countHit, 1)
		f.Fresh(readHit, 1).Is("1124")
		f.Drained()
		if q := cachedpg.StatsOf(f.DB).Queue; q.Dead != 4 || q.Lost != 0 {
			f.Errorf("%+v", q)
		}

		// Out of order, and one that was taken away.
		held = heldQueue(f)
		for id := 1; id < 5; id++ {
			f.Exec("UPDATE hits SET n = $2 WHERE id = $1", 2, id)
		}
		if entries, err = r.Client().XRange(f.Ctx, stream, "-", "+").Result(); err != nil || len(entries) != 4 {
			t.Fatalf("%d entries, %v", len(entries), err)
		}
		if err := r.Client().XTrimMaxLen(f.Ctx, stream, 0).Err(); err != nil {
			f.Fatal(err)
		}
		add(values(0))
		add(values(3))
		add(values(2))
		held()
		f.Drained()
		f.Fresh(readHit, 2).Is("4")
		if q := cachedpg.StatsOf(f.DB).Queue; q.Dead != 5 || q.Lost != 2 {
			f.Errorf("%+v, want 5 dead and 2 lost", q)
		}
	})
}

// What is in another queue of the same Redis is not for this one.
func TestASealedEntryIsGoodForItsQueueOnly(t *testing.T) {
	key := newKey(1)
	sealedQueue(t, key, func(f *harness.Fixture, r *redistest.Server) {
		f.Exec(countHit, 1)
		f.Drained()
		g := harness.New(t, pgtest.Database(t), "cache_statement", counters3, f.Keys...)
		g.Exec(countHit, 1)
		g.Via.Drained()
		held := heldQueue(f)
		f.Exec("UPDATE hits SET n = 99 WHERE id = 1")
		entries, err := r.Client().XRange(f.Ctx, inside.Queue(f.Via.DB).Store().QueueName(), "-", "+").Result()
		if err != nil || len(entries) != 1 {
			t.Fatalf("%d entries, %v", len(entries), err)
		}
		if err := r.Client().XAdd(f.Ctx, &goredis.XAddArgs{Stream: inside.Queue(g.Via.DB).Store().QueueName(), Values: entries[0].Values}).Err(); err != nil {
			f.Fatal(err)
		}
		held()
		g.Via.Drained()
		g.Fresh(readHit, 1).Is("1")
		if q := cachedpg.StatsOf(g.DB).Queue; q.Dead != 1 {
			f.Errorf("%+v", q)
		}
		f.Fresh(readHit, 1).Is("99")
	})
}

// Several processes queue at once, each with a number of its own.
func TestSealedWritesOfSeveralProcessesComeInOrder(t *testing.T) {
	sealedQueue(t, newKey(1), func(f *harness.Fixture, r *redistest.Server) {
		done := make(chan error)
		processes := []harness.Via{f.Via, f.Process("b"), f.Process("c")}
		const each = 30
		for _, p := range processes {
			for range 2 {
				go func() {
					var err error
					for i := 0; i < each && err == nil; i++ {
						_, err = p.DB.ExecContext(f.Ctx, countHit, 1)
					}
					done <- err
				}()
			}
		}
		for range 2 * len(processes) {
			if err := <-done; err != nil {
				f.Error(err)
			}
		}
		f.Fresh(readHit, 1).Is(fmt.Sprint(2 * each * len(processes)))
		for _, p := range processes {
			if q := cachedpg.StatsOf(p.DB).Queue; q.Dead != 0 || q.Lost != 0 {
				f.Errorf("%+v", q)
			}
		}
	})
}

// Keys are changed without a write refused; a process without the right ones says so.
func TestKeysOfTheQueueAreRotated(t *testing.T) {
	first, second := newKey(1), newKey(2)
	sealedQueue(t, first, func(f *harness.Fixture, r *redistest.Server) {
		f.Exec(countHit, 1)
		held := heldQueue(f)
		f.Exec(countHit, 1) // with the old key
		f.DB.Close()        // as far as it can be
		held()
		both := f.Process("both", "cache_encryption="+second+","+first)
		both.Exec(countHit, 1)
		both.Drained()
		both.Fresh(readHit, 1).Is("3")
		if q := cachedpg.StatsOf(both.DB).Queue; q.Dead != 0 || q.Lost != 0 {
			f.Errorf("%+v", q)
		}
		pg := f.Keys
		f.Keys = slices.DeleteFunc(slices.Clone(pg), func(k string) bool { return strings.HasPrefix(k, "cache_encryption") })
		c, err := (&cachedpg.Driver{}).OpenConnector(harness.WithKeys(f.DSN, f.Keys))
		if err != nil {
			f.Fatal(err)
		}
		inside.Process(c, "none")
		db := harness.OpenDB(f, c)
		if _, err := db.ExecContext(f.Ctx, countHit, 1); err == nil || !strings.Contains(err.Error(), "cache_encryption") {
			f.Errorf("without keys: %v", err)
		}
		if err := db.PingContext(f.Ctx); err == nil || !strings.Contains(err.Error(), "cache_encryption") {
			f.Errorf("Ping without keys: %v", err)
		}
		both.Fresh(readHit, 1).Is("3")
	})
}

// What was queued before there were keys is applied, and nothing like it afterwards.
func TestAQueueIsEncryptedFromThenOn(t *testing.T) {
	queueing(t, func(f *harness.Fixture, r *redistest.Server) {
		f.Exec(countHit, 1)
		held := heldQueue(f)
		f.Exec(countHit, 1)
		f.DB.Close()
		held()
		f.Via = f.Process("sealed", "cache_encryption="+newKey(1))
		f.Exec(countHit, 1)
		f.Fresh(readHit, 1).Is("3")
		plantIn(f, r, planted(f, "UPDATE hits SET n = 7 WHERE id = 1", nil))
		f.Drained()
		if q := cachedpg.StatsOf(f.Via.DB).Queue; q.Dead != 1 || q.Lost != 0 {
			f.Errorf("%+v", q)
		}
		f.Fresh(readHit, 1).Is("3")
	})
}

// The values of a write are in Redis in no form but the encrypted one, also when it was refused.
func TestDeadLettersAreEncrypted(t *testing.T) {
	sealedQueue(t, newKey(1), func(f *harness.Fixture, r *redistest.Server) {
		f.Exec("INSERT INTO hits (id, n, seen) VALUES ($1, $2, $3)", 1, 424242, nil) // there is one
		f.Drained()
		dead, err := r.Client().XRange(f.Ctx, cachedpg.StatsOf(f.DB).Queue.DeadLetters, "-", "+").Result()
		if err != nil || len(dead) != 1 || dead[0].Values["sqlstate"] != "23505" {
			t.Fatalf("%v, %v", dead, err)
		}
		if text := fmt.Sprint(dead[0].Values); strings.Contains(text, "424242") || strings.Contains(text, "INSERT") || strings.Contains(text, "duplicate") {
			f.Errorf("in Redis: %s", text)
		}
		var letters []cachedpg.DeadLetter
		if err := cachedpg.DeadLetters(f.Ctx, f.DB, func(l cachedpg.DeadLetter) bool { letters = append(letters, l); return true }); err != nil {
			f.Fatal(err)
		}
		if len(letters) != 1 || !strings.Contains(letters[0].SQL, "INSERT") || !strings.Contains(letters[0].Message, "duplicate") || len(letters[0].Args) != 3 {
			f.Errorf("%+v", letters)
		}
	})
}
