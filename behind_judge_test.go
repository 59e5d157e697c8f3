package cachedpg

import (
	"crypto/rand"
	"encoding/base64"
	encodingjson "encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	goredis "github.com/redis/go-redis/v9"

	"github.com/cachedpg/cachedpg/internal/pgtest"
	"github.com/cachedpg/cachedpg/internal/redistest"
)

// newKey is a key for cache_encryption.
func newKey(id int) string {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret)
	return fmt.Sprintf("%d:%s", id, base64.StdEncoding.EncodeToString(secret))
}

// sealedQueue is queueing with encryption.
func sealedQueue(t *testing.T, key string, story func(f *fixture, r *redistest.Server)) {
	t.Helper()
	t.Parallel()
	r := redistest.Start(t)
	story(newFixture(t, pgtest.Database(t), "cache_statement", counters3,
		"cache_store="+r.URL(), "cache_policy=hits:write-behind", "cache_encryption="+key), r)
}

// planted is an entry as somebody could make it who knows the format, and not the keys.
func (f *fixture) planted(sql string, settings map[string]string, args ...any) string {
	f.Helper()
	of := settingsOf(connectorOf(f.via.db).known.Load().session)
	for name, value := range settings {
		of[name] = value
	}
	raw, err := encodingjson.Marshal(of)
	if err != nil {
		f.Fatal(err)
	}
	w := wireWrite{Format: queuedFormat, SQL: []byte(sql), Mode: int32(pgx.QueryExecModeCacheStatement), Settings: raw}
	for _, v := range args {
		a, ok := encodeArg(v)
		if !ok {
			f.Fatalf("%T", v)
		}
		w.Args = append(w.Args, a)
	}
	payload, err := encodingjson.Marshal(w)
	if err != nil {
		f.Fatal(err)
	}
	return string(payload)
}

// plant puts an entry into the stream, behind all that were queued.
func (f *fixture) plant(r *redistest.Server, payload string) {
	f.Helper()
	name := f.behind().queue.QueueName()
	server, err := r.Client().HGet(f.ctx, name+":owner", "server").Result()
	if err != nil {
		f.Fatal(err)
	}
	number, err := r.Client().HIncrBy(f.ctx, name+":owner", "given", 1).Result()
	if err != nil {
		f.Fatal(err)
	}
	values := []any{"w", payload, "n", number, "s", server}
	if err := r.Client().XAdd(f.ctx, &goredis.XAddArgs{Stream: name, Values: values}).Err(); err != nil {
		f.Fatal(err)
	}
}

// Whoever can write to Redis runs nothing but what a process could have queued, and stops nothing.
func TestWhatIsPlantedInTheQueueDoesNotRun(t *testing.T) {
	queueing(t, func(f *fixture, r *redistest.Server) {
		f.past("CREATE TABLE secrets (id int PRIMARY KEY, n int); INSERT INTO secrets VALUES (1, 0)")
		role := roleOf(f)
		f.makeRole(role)
		f.Cleanup(func() { f.past("DROP OWNED BY " + role + "; DROP ROLE " + role) })
		f.again(readHit, 1)
		f.exec(countHit, 1)
		f.drained()
		for _, entry := range []string{
			f.planted("COMMIT", nil),
			f.planted("ROLLBACK", nil),
			f.planted("COMMIT; UPDATE secrets SET n = 1 WHERE id = 1", nil),
			f.planted("UPDATE secrets SET n = 1 WHERE id = 1", nil),
			f.planted("UPDATE hits SET n = 7 WHERE id = 1; UPDATE secrets SET n = 1 WHERE id = 1", nil),
			f.planted("UPDATE hits SET n = (SELECT 7 FROM secrets) WHERE id = 1", nil),
			f.planted("UPDATE hits SET n = 7", nil),
			f.planted("UPDATE cachedpg.queue SET position = '9999999999999-0' WHERE stream = 'x'", nil),
			f.planted("DROP TABLE secrets", nil),
			f.planted("SELECT pg_catalog.set_config('role', 'none', false)", nil),
			f.planted("COPY hits TO PROGRAM 'true'", nil),
			f.planted("UPDATE hits SET n = 7 WHERE id = $1", map[string]string{"role": role}, 1),
			f.planted("UPDATE hits SET n = 7 WHERE id = $1", map[string]string{"role": "x'; DROP TABLE secrets; --"}, 1),
			f.planted("UPDATE hits SET n = 7 WHERE id = $1", map[string]string{"session_replication_role": "replica"}, 1),
			f.planted("UPDATE hits SET n = 7 WHERE id = $1", map[string]string{"a', 'b', true); DROP TABLE secrets; --": "1"}, 1),
			f.planted("UPDATE hits SET n = 7 WHERE id = $1", map[string]string{"standard_conforming_strings": "off"}, 1),
			f.planted("UPDATE hits SET n = 7 WHERE id = $1", map[string]string{"client_encoding": "SJIS"}, 1),
			`{"f":1,"q":"` + base64.StdEncoding.EncodeToString([]byte("UPDATE hits SET n = 7 WHERE id = 1")) + `","m":77,"s":{}}`,
		} {
			dead := StatsOf(f.db).Queue.Dead
			f.plant(r, entry)
			f.exec(countHit, 2)
			f.drained()
			if got := StatsOf(f.db).Queue.Dead - dead; got != 1 {
				f.Errorf("%d are dead, want one: %s", got, entry)
			}
			if got := f.inPostgres("SELECT (SELECT n FROM hits WHERE id = 1), n FROM secrets"); got != "1 0" {
				f.Fatalf("it ran, and left %s: %s", got, entry)
			}
		}
		f.fresh(readHit, 2).is("18")
	})
}

// A process applies what others queue of tables that it has no policy for itself.
func TestAProcessOfAnotherPolicyRefusesNothingOfOthers(t *testing.T) {
	queueing(t, func(f *fixture, _ *redistest.Server) {
		other := f.process("other", "cache_policy=others:write-behind")
		other.known("SELECT n FROM others WHERE id = 1")
		f.exec(countHit, 1)
		f.drained()
		for range 20 {
			f.exec(countHit, 1)
			if !other.queues("UPDATE others SET n = n + 1 WHERE id = 1") {
				f.Fatal("not queued")
			}
		}
		f.drained()
		other.drained()
		if got := f.inPostgres("SELECT h.n, o.n FROM hits h, others o WHERE h.id = 1"); got != "21 20" {
			f.Errorf("got %s, want 21 20", got)
		}
		for _, v := range []via{f.via, other} {
			if q := StatsOf(v.db).Queue; q.Dead != 0 {
				f.Errorf("%+v", q)
			}
		}
	})
}

// With keys an entry is good for one place in one queue.
func TestASealedEntryIsGoodForItsPlaceOnly(t *testing.T) {
	sealedQueue(t, newKey(1), func(f *fixture, r *redistest.Server) {
		f.exec(countHit, 1)
		held := f.heldQueue()
		stream := f.behind().queue.QueueName()
		for id := 1; id < 4; id++ {
			f.exec("UPDATE hits SET n = n * 10 + $2 WHERE id = $1", 1, id)
		}
		entries, err := r.Client().XRange(f.ctx, stream, "-", "+").Result()
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
			if err := r.Client().XAdd(f.ctx, &goredis.XAddArgs{Stream: stream, Values: values}).Err(); err != nil {
				f.Fatal(err)
			}
		}
		add(values(0))                                                                                               // once more
		add(values(1, "n", "5"))                                                                                     // as the next one
		add([]any{"w", f.planted("UPDATE hits SET n = 0 WHERE id = 1", nil), "n", "5", "s", entries[0].Values["s"]}) // not sealed
		held()
		f.fresh(readHit, 1).is("1123")
		f.drained()
		if q := StatsOf(f.db).Queue; q.Dead != 3 || q.Lost != 0 {
			f.Errorf("%+v", q)
		}
		add(values(2)) // when it was applied and taken out
		f.exec(countHit, 1)
		f.fresh(readHit, 1).is("1124")
		f.drained()
		if q := StatsOf(f.db).Queue; q.Dead != 4 || q.Lost != 0 {
			f.Errorf("%+v", q)
		}

		// Out of order, and one that was taken away.
		held = f.heldQueue()
		for id := 1; id < 5; id++ {
			f.exec("UPDATE hits SET n = $2 WHERE id = $1", 2, id)
		}
		if entries, err = r.Client().XRange(f.ctx, stream, "-", "+").Result(); err != nil || len(entries) != 4 {
			t.Fatalf("%d entries, %v", len(entries), err)
		}
		if err := r.Client().XTrimMaxLen(f.ctx, stream, 0).Err(); err != nil {
			f.Fatal(err)
		}
		add(values(0))
		add(values(3))
		add(values(2))
		held()
		f.drained()
		f.fresh(readHit, 2).is("4")
		if q := StatsOf(f.db).Queue; q.Dead != 5 || q.Lost != 2 {
			f.Errorf("%+v, want 5 dead and 2 lost", q)
		}
	})
}

// What is in another queue of the same Redis is not for this one.
func TestASealedEntryIsGoodForItsQueueOnly(t *testing.T) {
	key := newKey(1)
	sealedQueue(t, key, func(f *fixture, r *redistest.Server) {
		f.exec(countHit, 1)
		f.drained()
		g := newFixture(t, pgtest.Database(t), "cache_statement", counters3, f.keys...)
		g.exec(countHit, 1)
		g.drained()
		held := f.heldQueue()
		f.exec("UPDATE hits SET n = 99 WHERE id = 1")
		entries, err := r.Client().XRange(f.ctx, f.behind().queue.QueueName(), "-", "+").Result()
		if err != nil || len(entries) != 1 {
			t.Fatalf("%d entries, %v", len(entries), err)
		}
		if err := r.Client().XAdd(f.ctx, &goredis.XAddArgs{Stream: g.behind().queue.QueueName(), Values: entries[0].Values}).Err(); err != nil {
			f.Fatal(err)
		}
		held()
		g.drained()
		g.fresh(readHit, 1).is("1")
		if q := StatsOf(g.db).Queue; q.Dead != 1 {
			f.Errorf("%+v", q)
		}
		f.fresh(readHit, 1).is("99")
	})
}

// Several processes queue at once, each with a number of its own.
func TestSealedWritesOfSeveralProcessesComeInOrder(t *testing.T) {
	sealedQueue(t, newKey(1), func(f *fixture, r *redistest.Server) {
		done := make(chan error)
		processes := []via{f.via, f.process("b"), f.process("c")}
		const each = 30
		for _, p := range processes {
			for range 2 {
				go func() {
					var err error
					for i := 0; i < each && err == nil; i++ {
						_, err = p.db.ExecContext(f.ctx, countHit, 1)
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
		f.fresh(readHit, 1).is(fmt.Sprint(2 * each * len(processes)))
		for _, p := range processes {
			if q := StatsOf(p.db).Queue; q.Dead != 0 || q.Lost != 0 {
				f.Errorf("%+v", q)
			}
		}
	})
}

// Keys are changed without a write refused; a process without the right ones says so.
func TestKeysOfTheQueueAreRotated(t *testing.T) {
	first, second := newKey(1), newKey(2)
	sealedQueue(t, first, func(f *fixture, r *redistest.Server) {
		f.exec(countHit, 1)
		held := f.heldQueue()
		f.exec(countHit, 1) // with the old key
		f.db.Close()        // as far as it can be
		held()
		both := f.process("both", "cache_encryption="+second+","+first)
		both.exec(countHit, 1)
		both.drained()
		both.fresh(readHit, 1).is("3")
		if q := StatsOf(both.db).Queue; q.Dead != 0 || q.Lost != 0 {
			f.Errorf("%+v", q)
		}
		pg := f.keys
		f.keys = slices.DeleteFunc(slices.Clone(pg), func(k string) bool { return strings.HasPrefix(k, "cache_encryption") })
		c, err := (&Driver{}).OpenConnector(withKeys(f.dsn, f.keys))
		if err != nil {
			f.Fatal(err)
		}
		c.(*connector).process = "none"
		db := openDB(f, c)
		if _, err := db.ExecContext(f.ctx, countHit, 1); err == nil || !strings.Contains(err.Error(), "cache_encryption") {
			f.Errorf("without keys: %v", err)
		}
		if err := db.PingContext(f.ctx); err == nil || !strings.Contains(err.Error(), "cache_encryption") {
			f.Errorf("Ping without keys: %v", err)
		}
		both.fresh(readHit, 1).is("3")
	})
}

// What was queued before there were keys is applied, and nothing like it afterwards.
func TestAQueueIsEncryptedFromThenOn(t *testing.T) {
	queueing(t, func(f *fixture, r *redistest.Server) {
		f.exec(countHit, 1)
		held := f.heldQueue()
		f.exec(countHit, 1)
		f.db.Close()
		held()
		f.via = f.process("sealed", "cache_encryption="+newKey(1))
		f.exec(countHit, 1)
		f.fresh(readHit, 1).is("3")
		f.plant(r, f.planted("UPDATE hits SET n = 7 WHERE id = 1", nil))
		f.drained()
		if q := StatsOf(f.via.db).Queue; q.Dead != 1 || q.Lost != 0 {
			f.Errorf("%+v", q)
		}
		f.fresh(readHit, 1).is("3")
	})
}

// The values of a write are in Redis in no form but the encrypted one, also when it was refused.
func TestDeadLettersAreEncrypted(t *testing.T) {
	sealedQueue(t, newKey(1), func(f *fixture, r *redistest.Server) {
		f.exec("INSERT INTO hits (id, n, seen) VALUES ($1, $2, $3)", 1, 424242, nil) // there is one
		f.drained()
		dead, err := r.Client().XRange(f.ctx, StatsOf(f.db).Queue.DeadLetters, "-", "+").Result()
		if err != nil || len(dead) != 1 || dead[0].Values["sqlstate"] != "23505" {
			t.Fatalf("%v, %v", dead, err)
		}
		if text := fmt.Sprint(dead[0].Values); strings.Contains(text, "424242") || strings.Contains(text, "INSERT") || strings.Contains(text, "duplicate") {
			f.Errorf("in Redis: %s", text)
		}
		var letters []DeadLetter
		if err := DeadLetters(f.ctx, f.db, func(l DeadLetter) bool { letters = append(letters, l); return true }); err != nil {
			f.Fatal(err)
		}
		if len(letters) != 1 || !strings.Contains(letters[0].SQL, "INSERT") || !strings.Contains(letters[0].Message, "duplicate") || len(letters[0].Args) != 3 {
			f.Errorf("%+v", letters)
		}
	})
}
