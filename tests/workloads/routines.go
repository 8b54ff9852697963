// A Go program: many goroutines, channels, timers, a garbage collector at work, and the network
// poller. It says the lines of prove.h: "ready", "ok N", "BAD reason", and "done" after SIGTERM.
package main

import (
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

const routines = 200

var faults = make(chan string, 10)

// A ring of goroutines: each adds one and passes on.
func ring(rounds *atomic.Int64) {
	first := make(chan int)
	in := first
	for i := 0; i < routines; i++ {
		out := make(chan int)
		go func(in, out chan int) {
			for value := range in {
				out <- value + 1
			}
		}(in, out)
		in = out
	}
	for value := 0; ; rounds.Add(1) {
		first <- value
		got := <-in
		if got != value+routines {
			faults <- fmt.Sprintf("the ring made %d of %d", got, value)
		}
		value = got
	}
}

// Garbage with a checksum: a lost or stale page shows in what survives collection.
func allocate(rounds *atomic.Int64) {
	type node struct {
		payload [1000]byte
		sum     [32]byte
	}
	kept := make([]*node, 4000)
	for i := 0; ; i++ {
		slot := i % len(kept)
		if old := kept[slot]; old != nil && sha256.Sum256(old.payload[:]) != old.sum {
			faults <- fmt.Sprintf("node %d changed", i)
		}
		fresh := &node{}
		for j := range fresh.payload {
			fresh.payload[j] = byte(i * j)
		}
		fresh.sum = sha256.Sum256(fresh.payload[:])
		kept[slot] = fresh
		rounds.Add(1)
		if i%100 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
}

// The clock may not run backwards, and a ticker has to go on.
func tick(rounds *atomic.Int64) {
	before := time.Now()
	for range time.Tick(3 * time.Millisecond) {
		now := time.Now()
		if now.Sub(before) < 0 {
			faults <- "the clock ran backwards"
		}
		before = now
		rounds.Add(1)
	}
}

func main() {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go listener.Accept()
	jobs := []func(*atomic.Int64){ring, allocate, allocate, tick}
	rounds := make([]atomic.Int64, len(jobs))
	for i, job := range jobs {
		go job(&rounds[i])
	}
	fmt.Println("ready")
	seen := make([]int64, len(jobs))
	idle := make([]int, len(jobs))
	for checks := 1; ; checks++ {
		last := false
		select {
		case <-term:
			last = true
		case <-time.After(50 * time.Millisecond):
		case fault := <-faults:
			fmt.Println("BAD", fault)
			os.Exit(1)
		}
		for i := range rounds {
			now := rounds[i].Load()
			idle[i]++
			if now != seen[i] {
				idle[i] = 0
			}
			seen[i] = now
			if idle[i] > 600 {
				fmt.Println("BAD job", i, "stands still")
				os.Exit(1)
			}
		}
		fmt.Println("ok", checks)
		if last {
			fmt.Println("done")
			return
		}
	}
}
