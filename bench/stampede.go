package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg"
)

const stampedeName = "stampede"

// StampedeOptions says how many miss the same key at the same time, and how often.
type StampedeOptions struct {
	Processes, Goroutines, Rounds int
}

// selectSlow takes long enough for everybody to miss meanwhile. PostgreSQL counts
// the scans of the table counted; the nonce makes another key of every round.
const (
	makeCounted = "CREATE TABLE counted (id bigint); INSERT INTO counted VALUES (1); ANALYZE counted"
	selectSlow  = "SELECT count(*) FROM counted, item a, item b WHERE a.id <= 1000 AND b.id <= 3000 AND a.stock <> b.id AND $1::bigint IS NOT NULL"
)

// stampedeChild is what a process of a stampede is told.
type stampedeChild struct {
	DSN, Redis string
	Goroutines int
}

const stampedeEnv = "CACHEDPG_BENCH_STAMPEDE"

// Stampede lets several processes, each with many goroutines, read the same row
// at the same time that no cache holds, and prints how many SELECTs PostgreSQL ran.
// The processes are this program again: it must call RunStampedeChild first.
func Stampede(ctx context.Context, out io.Writer, o StampedeOptions, redis string, database func() (string, error)) error {
	dsn, err := database()
	if err != nil {
		return err
	}
	if err := Load(ctx, dsn); err != nil {
		return err
	}
	// With the mode exec PostgreSQL plans a text in the same way every time.
	application := fmt.Sprintf("stampede %d", time.Now().UnixNano())
	dsn, err = withSettings(dsn, "default_query_exec_mode=exec", "max_parallel_workers_per_gather=0", "application_name="+application)
	if err != nil {
		return err
	}
	observed, err := withSettings(dsn, "application_name=bench")
	if err != nil {
		return err
	}
	observer, err := pgx.Connect(ctx, observed)
	if err != nil {
		return err
	}
	defer observer.Close(context.Background())
	if _, err := observer.Exec(ctx, makeCounted, pgx.QueryExecModeSimpleProtocol); err != nil {
		return err
	}
	one, err := scansOfOne(ctx, dsn, observer)
	if err != nil {
		return err
	}
	took, selects, joined, err := runStampede(ctx, o, stampedeChild{DSN: dsn, Redis: redis, Goroutines: o.Goroutines})
	if err != nil {
		return err
	}
	// The processes have told how many they ran; PostgreSQL must have seen as many.
	all, err := scans(ctx, observer, application, one*(selects+1))
	if err != nil {
		return err
	}
	if all != one*(selects+1) {
		return fmt.Errorf("%s: the processes ran %d SELECTs, PostgreSQL counts %g", stampedeName, selects, float64(all)/float64(one)-1)
	}
	slices.Sort(took)
	fmt.Fprintf(out, "%s: %d goroutines in %d processes miss the same key at once, %d times\n", stampedeName, o.Processes*o.Goroutines, o.Processes, o.Rounds)
	fmt.Fprintf(out, "  SELECTs each time: %.1f (%d in all); waited for another's: %.1f%%; until the last goroutine had its answer: %v (median)\n\n",
		float64(selects)/float64(o.Rounds), selects, 100*float64(joined)/float64(o.Processes*o.Goroutines*o.Rounds), took[len(took)/2].Round(time.Millisecond))
	return nil
}

// scansOfOne returns how many scans one SELECT is.
func scansOfOne(ctx context.Context, dsn string, observer *pgx.Conn) (int64, error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return 0, err
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return 0, err
	}
	_, err = conn.Exec(ctx, selectSlow, 0)
	if err := errors.Join(err, conn.Close(ctx)); err != nil {
		return 0, err
	}
	return scans(ctx, observer, config.RuntimeParams["application_name"], 1)
}

// scans returns PostgreSQL's count when all sessions of the application are gone.
// They report what they did when they end, and at least is known to be true.
func scans(ctx context.Context, observer *pgx.Conn, application string, least int64) (n int64, err error) {
	err = until(ctx, "the end of sessions and their statistics", func() (over bool, err error) {
		err = observer.QueryRow(ctx, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = $1)", application).Scan(&over)
		if err != nil || !over {
			return false, err
		}
		err = observer.QueryRow(ctx, "SELECT seq_scan FROM pg_stat_user_tables WHERE relid = 'counted'::regclass").Scan(&n)
		return n >= least, err
	})
	return n, err
}

// runStampede returns how long each round took, how many SELECTs were run, and
// how many goroutines waited for one of them.
func runStampede(ctx context.Context, o StampedeOptions, c stampedeChild) (took []time.Duration, selects, joined int64, err error) {
	told, err := json.Marshal(c)
	if err != nil {
		return nil, 0, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(1+o.Rounds)*patience)
	defer cancel()
	var children []*process
	defer func() {
		for _, p := range children {
			err = errors.Join(err, p.end())
		}
	}()
	for range o.Processes {
		p, err := startProcess(ctx, append(os.Environ(), stampedeEnv+"="+string(told)))
		if err != nil {
			return nil, 0, 0, err
		}
		children = append(children, p)
	}
	hear := func() error {
		for _, p := range children {
			n, m, err := p.hear()
			if err != nil {
				return err
			}
			selects, joined = selects+n, joined+m
		}
		return nil
	}
	if err := hear(); err != nil { // ready
		return nil, 0, 0, err
	}
	for range o.Rounds {
		nonce := counter.Add(1)
		begin := time.Now()
		for _, p := range children {
			if _, err := fmt.Fprintln(p.in, nonce); err != nil {
				return nil, 0, 0, err
			}
		}
		if err := hear(); err != nil {
			return nil, 0, 0, err
		}
		took = append(took, time.Since(begin))
	}
	return took, selects, joined, nil
}

// process is a child. It says when it is ready, does a round for each line that it
// reads, and answers with the numbers of SELECTs that it ran and of goroutines that
// waited for another one's, or with what went wrong.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startProcess(ctx context.Context, env []string) (*process, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program)
	cmd.Env, cmd.Stderr = env, os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &process{cmd, in, bufio.NewReader(out)}, cmd.Start()
}

// hear waits for the answer.
func (p *process) hear() (selects, joined int64, err error) {
	line, err := p.out.ReadString('\n')
	if err == nil {
		if _, err = fmt.Sscanf(line, "%d %d\n", &selects, &joined); err != nil {
			err = errors.New(line)
		}
	}
	if err != nil {
		return 0, 0, fmt.Errorf("a process of the stampede: %w", err)
	}
	return selects, joined, nil
}

func (p *process) end() error {
	p.in.Close()
	return p.cmd.Wait()
}

// RunStampedeChild does the part of a process that Stampede has started, and
// ends it. In any other process it does nothing.
func RunStampedeChild() {
	told, ok := os.LookupEnv(stampedeEnv)
	if !ok {
		return
	}
	if err := stampedeChildMain(context.Background(), []byte(told), os.Stdin, os.Stdout); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

func stampedeChildMain(ctx context.Context, told []byte, in io.Reader, out io.Writer) error {
	var c stampedeChild
	if err := json.Unmarshal(told, &c); err != nil {
		return err
	}
	client, err := openShared(Env{DSN: c.DSN, Redis: c.Redis})
	if err != nil {
		return err
	}
	defer client.Close()
	fmt.Fprintln(out, 0, 0)
	for lines := bufio.NewScanner(in); lines.Scan(); {
		nonce, err := strconv.ParseInt(lines.Text(), 10, 64)
		if err != nil {
			return err
		}
		selects, joined, err := client.stampede(ctx, c.Goroutines, nonce)
		if err != nil {
			return err
		}
		fmt.Fprintln(out, selects, joined)
	}
	return nil
}

// stampede reads one key with many goroutines at once, and returns how many of
// them ran the SELECT and how many waited for it.
func (c *sqlClient) stampede(ctx context.Context, goroutines int, nonce int64) (selects, joined uint64, err error) {
	c.db.SetMaxOpenConns(0) // who waits for another one's result needs no connection to PostgreSQL
	before := cachedpg.StatsOf(c.db)
	errs := make([]error, goroutines)
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			var n int64
			errs[g] = c.db.QueryRowContext(ctx, selectSlow, nonce).Scan(&n)
			if errs[g] == nil && n == 0 {
				errs[g] = errors.New("the SELECT counts nothing")
			}
		})
	}
	wg.Wait()
	after := cachedpg.StatsOf(c.db)
	if after.Bypassed != before.Bypassed {
		return 0, 0, fmt.Errorf("queries went past the cache: %v", after.Bypasses)
	}
	missed, joined := after.Misses-before.Misses, after.Joined-before.Joined
	return missed - joined, joined, errors.Join(errs...)
}
