package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "headrace-example/headracev1"
)

const (
	giveUpAfter = 5 * time.Minute // of nothing new; a server that is full may say that a slot gets free in a minute or two
	firstDelay  = 100 * time.Millisecond
	maxDelay    = 2 * time.Second
	remembered  = 32
)

// What the messages of Stream and of Live have in common.
type event interface {
	GetStarted() *pb.Started
	GetQueuePosition() *pb.QueuePosition
	GetFrames() *pb.Frames
	GetQualityChange() *pb.QualityChange
	GetEnded() *pb.Ended
}

type receive func() (event, error)

// How long to wait before the call is made again, and whether that would help at all.
func retryDelay(err error, failures int) (time.Duration, bool) {
	failed := status.Convert(err)
	delay, told := maxDelay, false
	if failures < 10 && firstDelay<<failures < maxDelay {
		delay = firstDelay << failures
	}
	for _, detail := range failed.Details() {
		if retry, ok := detail.(*errdetails.RetryInfo); ok {
			after := retry.GetRetryDelay()
			delay, told = time.Duration(after.GetSeconds())*time.Second+time.Duration(after.GetNanos()), true
		}
	}
	switch failed.Code() {
	case codes.ResourceExhausted:
		return delay, told // without a delay it is this library's: a message was too large
	case codes.Unavailable, codes.Canceled:
		return delay, true
	}
	return 0, false
}

// What has arrived of a session: all that is needed to go on with it elsewhere.
type arrived struct {
	token          string
	nextFrame      uint64
	acknowledged   []*pb.PromptAck
	qualityChanges []*pb.QualityChange
}

func (a *arrived) note(e event) {
	if started := e.GetStarted(); started != nil {
		a.token = started.ResumeToken
	}
	if frames := e.GetFrames(); frames != nil {
		a.nextFrame = frames.FirstFrame + uint64(frames.FrameCount)
	}
	if response, ok := e.(*pb.LiveResponse); ok && response.GetPromptAck() != nil {
		ack := response.GetPromptAck()
		kept := len(a.acknowledged)
		for kept > 0 && a.acknowledged[kept-1].FirstFrame >= ack.FirstFrame {
			kept--
		}
		a.acknowledged = append(a.acknowledged[:kept], ack)
		a.acknowledged = a.acknowledged[max0(len(a.acknowledged)-remembered):]
		if ack.FirstFrame < a.nextFrame {
			a.nextFrame = ack.FirstFrame // later ones are superseded
		}
	}
	if change := e.GetQualityChange(); change != nil {
		kept := len(a.qualityChanges)
		for kept > 0 && a.qualityChanges[kept-1].FirstFrame >= change.FirstFrame {
			kept--
		}
		a.qualityChanges = append(a.qualityChanges[:kept], change)
		a.qualityChanges = a.qualityChanges[max0(len(a.qualityChanges)-remembered):]
	}
}

func (a *arrived) resume() *pb.SessionResume {
	if a.token == "" {
		return nil
	}
	return &pb.SessionResume{Token: a.token, NextFrame: a.nextFrame, Acknowledged: a.acknowledged, QualityChanges: a.qualityChanges}
}

func max0(n int) int {
	if n < 0 {
		return 0
	}
	return n
}

// Hands the events of a session to handle, over as many connections as it takes. open makes a call that begins it, or goes on with it.
func follow(open func(context.Context, *pb.SessionResume) (receive, error), handle func(event) error) error {
	var a arrived
	failures, lastNews := 0, time.Now()
	for {
		ended, err := attempt(open, a.resume(), func(e event) error {
			if e.GetFrames() != nil {
				failures, lastNews = 0, time.Now()
			}
			a.note(e)
			return handle(e)
		}, func() bool { return a.token != "" })
		if ended {
			return err
		}
		delay, again := retryDelay(err, failures)
		failures++
		if !again || time.Since(lastNews)+delay > giveUpAfter {
			return err
		}
		fmt.Fprintf(os.Stderr, "%s: %s; again in %s\n", status.Code(err), status.Convert(err).Message(), delay)
		time.Sleep(delay)
	}
}

// One connection. True where the session is over, or handle failed; otherwise the error says whether to try again.
func attempt(
	open func(context.Context, *pb.SessionResume) (receive, error), resume *pb.SessionResume, handle func(event) error, resumable func() bool,
) (bool, error) {
	// Cancelling stops the work behind the call.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	next, err := open(ctx, resume)
	if err != nil {
		return false, err
	}
	for {
		e, err := next()
		if err == io.EOF {
			return false, status.Error(codes.Unavailable, "the call ended before the session")
		}
		if err != nil {
			return false, err
		}
		if ended := e.GetEnded(); ended != nil {
			if ended.Reason == pb.EndReason_END_REASON_SERVER_DRAINING && resumable() {
				return false, status.Error(codes.Unavailable, "the server shuts down")
			}
			return true, handle(e)
		}
		if err := handle(e); err != nil {
			return true, err
		}
	}
}

// Fragmented MP4 on its way to a file. A fragment that came in pieces is written when its last piece is there.
type mp4File struct {
	file   *os.File
	pieces [][]byte
	begun  bool
}

func createMp4(path string) (*mp4File, error) {
	file, err := os.Create(path)
	return &mp4File{file: file}, err
}

func (m *mp4File) close() { m.file.Close() }

func (m *mp4File) take(e event) error {
	if waiting := e.GetQueuePosition(); waiting != nil {
		fmt.Fprintf(os.Stderr, "waiting, position %d\n", waiting.Position)
	}
	if started := e.GetStarted(); started != nil {
		m.pieces = nil // of a fragment that broke off: it comes again
		if !m.begun {
			m.begun = true
			return m.write(started.CodecHeader)
		}
	}
	if frames := e.GetFrames(); frames != nil {
		m.pieces = append(m.pieces, frames.Data...)
		if frames.FrameCount > 0 {
			pieces := m.pieces
			m.pieces = nil
			return m.write(pieces...)
		}
	}
	if ended := e.GetEnded(); ended != nil {
		fmt.Printf("%d frames\n", ended.Usage.FramesSent)
	}
	return nil
}

func (m *mp4File) write(pieces ...[]byte) error {
	for _, piece := range pieces {
		if _, err := m.file.Write(piece); err != nil {
			return err
		}
	}
	return nil
}
