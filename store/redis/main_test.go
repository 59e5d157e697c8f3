package redis

import (
	"testing"

	goredis "github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goredis.SetLogger(&printed)
	goleak.VerifyTestMain(m)
}
