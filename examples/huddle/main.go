// Command huddle is the smallest useful backend of rtcd: voice rooms on one web page. It shows
// how to use the client package, and is the demo of this repository.
//
//	huddle -rtcd http://127.0.0.1:8045 -listen 127.0.0.1:8000
//	huddle -start ./rtcd
//
// With -start it runs rtcd itself, on its embedded defaults, and stops it in the end.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"rtcd/client"
)

const (
	startTimeout = 20 * time.Second // for rtcd to answer
	stopTimeout  = 5 * time.Second  // for the last words to rtcd
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends us at once
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "huddle:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	rtcd, start, listen string
	verbose             bool
}

// run serves until ctx ends.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	var o options
	flags := flag.NewFlagSet("huddle", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.rtcd, "rtcd", "", "`URL` of a running rtcd (default: of the environment, or http://127.0.0.1:8045)")
	flags.StringVar(&o.start, "start", "", "`path` of an rtcd binary to start and stop with huddle")
	flags.StringVar(&o.listen, "listen", "127.0.0.1:8000", "`address` of the web page")
	flags.BoolVar(&o.verbose, "v", false, "show the logs of huddle and rtcd")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return err
	case err != nil:
		return fmt.Errorf("command line: %w", err)
	case flags.NArg() > 0:
		return fmt.Errorf("command line: unexpected %q", flags.Arg(0))
	}
	logLevel := slog.LevelWarn
	if o.verbose {
		logLevel = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: logLevel}))

	listener, err := net.Listen("tcp", o.listen)
	if err != nil {
		return taken("the web page", "TCP", o.listen, "-listen", err)
	}
	defer func() { _ = listener.Close() }()
	cfg := client.Config{
		URL:      cmp.Or(o.rtcd, apiURL(os.Getenv)),
		ClientID: cmp.Or(os.Getenv("HUDDLE_CLIENT_ID"), "huddle-"+newID()),
		AuthKey:  cmp.Or(os.Getenv("HUDDLE_AUTH_KEY"), rand.Text()+rand.Text()),
		AdminKey: os.Getenv("HUDDLE_ADMIN_KEY"),
		Log:      log, AutoRegister: true,
	}
	var crashed <-chan struct{} // never, if rtcd is not ours
	if o.start != "" {
		child, serr := startChild(o.start, o.verbose, stdout, stderr)
		if serr != nil {
			return serr
		}
		defer func() {
			if errors.Is(err, errCrashed) {
				err = nil // stop knows more
			}
			err = errors.Join(err, child.stop())
		}()
		cfg.AdminKey, crashed = child.adminKey, child.done
	}
	return serve(ctx, o, cfg, listener, crashed, log, stdout)
}

// serve connects to rtcd and serves the page until ctx ends or rtcd, as our child, does.
func serve(ctx context.Context, o options, cfg client.Config, listener net.Listener, crashed <-chan struct{}, log *slog.Logger, stdout io.Writer) error {
	c, err := client.New(cfg)
	if err != nil {
		return err
	}
	defer c.CloseIdleConnections()
	if err := awaitServer(ctx, c, crashed); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("wait for rtcd at %s: %w", cfg.URL, err)
	}
	// The Conn outlives ctx: in the end there are sessions to leave.
	conn, err := c.Connect(context.WithoutCancel(ctx))
	if err != nil {
		return fmt.Errorf("rtcd at %s: %w (set HUDDLE_ADMIN_KEY, or HUDDLE_CLIENT_ID and HUDDLE_AUTH_KEY)", cfg.URL, err)
	}
	h := newHub(conn, log)
	s := newServer(h)
	web := &http.Server{
		Handler: s, MaxHeaderBytes: 16 << 10,
		ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 30 * time.Second,
	}
	webDone, hubDone := make(chan error, 1), make(chan struct{})
	go func() { webDone <- web.Serve(listener) }()
	go func() { defer close(hubDone); h.serve(conn.Events()) }()
	fmt.Fprintf(stdout, "\n  Huddle is ready. Open this link in two tabs and talk:\n\n      http://%s/?room=lobby\n\n  Ctrl-C stops it.\n\n", linkHost(listener.Addr()))

	select {
	case <-ctx.Done():
	case err = <-webDone:
	case <-conn.Done():
		err = fmt.Errorf("connection to rtcd: %w", conn.Err())
	case <-crashed:
		err = errCrashed
	}
	h.close()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err == nil {
		_ = conn.Flush(last) // on failure the sessions time out at rtcd
	}
	_ = web.Shutdown(last) // it waits for requests, but not for WebSockets
	s.browsers.Wait()      // which have been given up
	_ = conn.Close()
	if err == nil && os.Getenv("HUDDLE_CLIENT_ID") == "" {
		if uerr := c.Unregister(last); uerr != nil {
			log.Info("unregister", "err", uerr)
		}
	}
	<-hubDone
	return err
}

// awaitServer waits until rtcd answers.
func awaitServer(ctx context.Context, c *client.Client, crashed <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		_, err := c.Version(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return err
		case <-crashed:
			return errCrashed
		}
	}
}

// linkHost returns the address of the page as one can type it.
func linkHost(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
