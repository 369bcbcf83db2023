// Streams a video to a file, or steers a live one, with nothing but grpc-go.
//
//	headrace stream ADDRESS PROMPT SECONDS FILE.mp4 [SEED]
//	headrace live ADDRESS PROMPT NEXT_PROMPT SECONDS FILE.mp4 [SEED]
//
// A busy server is asked again, a session whose connection broke goes on where it stopped, a refused request is explained.
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	pb "headrace-example/headracev1"
)

const usage = "usage: headrace stream ADDRESS PROMPT SECONDS FILE [SEED] | live ADDRESS PROMPT NEXT_PROMPT SECONDS FILE [SEED]"

// A server that has vanished is noticed, also while nothing is sent because a session is paused. One that takes a connection
// and says nothing has stopped: the next attempt may reach another one behind the same address.
func dial(address string) (*grpc.ClientConn, error) {
	connect := grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: 2 * time.Second}
	connect.Backoff.BaseDelay, connect.Backoff.MaxDelay = 100*time.Millisecond, time.Second
	return grpc.Dial(address,
		grpc.WithInsecure(), // from grpc-go 1.43 on: grpc.WithTransportCredentials(insecure.NewCredentials())
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.WithConnectParams(connect))
}

func stream(client pb.VideoServiceClient, spec *pb.VideoSpec, file *mp4File) error {
	open := func(ctx context.Context, resume *pb.SessionResume) (receive, error) {
		request := &pb.StreamRequest{Spec: spec, Codec: pb.Codec_CODEC_FMP4_H264}
		if resume != nil {
			request = &pb.StreamRequest{Resume: resume}
		}
		call, err := client.Stream(ctx, request)
		return func() (event, error) { return call.Recv() }, err
	}
	return follow(open, file.take)
}

func live(client pb.VideoServiceClient, spec *pb.VideoSpec, next string, seconds float64, file *mp4File) error {
	change := &pb.LiveRequest{Action: &pb.LiveRequest_Prompt{Prompt: &pb.PromptChange{Prompt: next, RequestId: 1}}}
	state, fps := "before", 0.0 // then "asked", "changed", "stopped"
	var call pb.VideoService_LiveClient
	open := func(ctx context.Context, resume *pb.SessionResume) (receive, error) {
		var err error
		if call, err = client.Live(ctx); err != nil {
			return nil, err
		}
		start := &pb.LiveStart{Spec: spec, Codec: pb.Codec_CODEC_FMP4_H264}
		if resume != nil {
			start = &pb.LiveStart{Resume: resume}
		}
		// What fails to be sent fails to be answered, too: Recv says why.
		_ = call.Send(&pb.LiveRequest{Action: &pb.LiveRequest_Start{Start: start}})
		if state == "asked" { // it was not answered
			_ = call.Send(change)
		}
		return func() (event, error) { return call.Recv() }, nil
	}
	return follow(open, func(e event) error {
		if started := e.GetStarted(); started != nil {
			fps = float64(started.Fps)
		}
		if frames := e.GetFrames(); frames != nil {
			switch {
			case state == "before":
				state = "asked"
				_ = call.Send(change)
			case state == "changed" && float64(frames.FirstFrame+uint64(frames.FrameCount)) >= seconds*fps:
				state = "stopped"
				_ = call.Send(&pb.LiveRequest{Action: &pb.LiveRequest_Stop{Stop: &pb.Stop{}}})
			}
		}
		response := e.(*pb.LiveResponse)
		if ack := response.GetPromptAck(); ack != nil {
			state = "changed"
			fmt.Printf("%q from frame %d on\n", ack.Prompt, ack.FirstFrame)
		}
		if refused := response.GetPromptRefused(); refused != nil {
			state = "changed"
			fmt.Fprintf(os.Stderr, "refused: %s\n", refused.Message)
		}
		return file.take(e)
	})
}

// Prints what is wrong. Returns the exit status: 2 where the request is to blame.
func explain(err error) int {
	failed := status.Convert(err)
	fmt.Fprintf(os.Stderr, "%s: %s\n", failed.Code(), failed.Message())
	for _, detail := range failed.Details() {
		switch detail := detail.(type) {
		case *errdetails.BadRequest:
			for _, violation := range detail.FieldViolations {
				fmt.Fprintf(os.Stderr, "  %s: %s\n", violation.Field, violation.Description)
			}
		case *errdetails.RequestInfo:
			fmt.Fprintf(os.Stderr, "  report this id: %s\n", detail.RequestId)
		}
	}
	if failed.Code() == codes.InvalidArgument {
		return 2
	}
	return 1
}

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	count := map[string]int{"stream": 5, "live": 6}
	if len(args) == 0 || count[args[0]] == 0 || len(args) < count[args[0]] {
		return fail(fmt.Errorf(usage))
	}
	words := args[2:]
	rest := words[count[args[0]]-4:] // SECONDS FILE [SEED]
	spec := &pb.VideoSpec{Prompt: words[0]}
	seconds, err := strconv.ParseFloat(rest[0], 64)
	if err != nil {
		return fail(err)
	}
	if len(rest) > 2 {
		seed, err := strconv.ParseUint(rest[2], 10, 64)
		if err != nil {
			return fail(err)
		}
		spec.Seed = &seed
	}
	connection, err := dial(args[1])
	if err != nil {
		return fail(err)
	}
	defer connection.Close()
	file, err := createMp4(rest[1])
	if err != nil {
		return fail(err)
	}
	defer file.close()

	client := pb.NewVideoServiceClient(connection)
	if args[0] == "stream" {
		spec.Seconds = seconds
		err = stream(client, spec, file)
	} else {
		err = live(client, spec, words[1], seconds, file)
	}
	if err != nil {
		return explain(err)
	}
	return 0
}
