// A Call is one session at rtcd: a peer connection, its data channel, and the signalling between
// the two ends (docs/protocol.md). It knows nothing of the page.
'use strict';

const DC = { ping: 1, pong: 2, lock: 7, unlock: 8, mediaMap: 9 };
const lockRetry = 50; // ms between two requests for the lock
const answerTimeout = 10000;

// A camera is sent in three sizes, so that each receiver can be given what its network takes. With
// a scalability mode all codecs are sent that way, and in frame rates that can be thinned out.
const cameraLayers = [
  { rid: 'l', scaleResolutionDownBy: 4, maxBitrate: 150e3, scalabilityMode: 'L1T3' },
  { rid: 'm', scaleResolutionDownBy: 2, maxBitrate: 500e3, scalabilityMode: 'L1T3' },
  { rid: 'h', scaleResolutionDownBy: 1, maxBitrate: 1.7e6, scalabilityMode: 'L1T3' },
];
// Of a small picture Chromium sends two layers at most, the lowest ones: there must not be three.
const smallCameraLayers = cameraLayers.slice(1);
const smallCamera = 960 * 540; // less than that many pixels
// A screen that is scaled down cannot be read: its lower layer is slower instead.
const screenLayers = [
  { rid: 'l', scaleResolutionDownBy: 1, maxFramerate: 5, maxBitrate: 500e3, scalabilityMode: 'L1T1' },
  { rid: 'h', scaleResolutionDownBy: 1, maxFramerate: 20, maxBitrate: 2.5e6, scalabilityMode: 'L1T1' },
];

// sendableCodecs returns the names of the video codecs that this browser can send.
function sendableCodecs() {
  const { codecs } = RTCRtpSender.getCapabilities('video');
  const names = codecs.map((c) => c.mimeType.replace('video/', ''));
  return ['VP8', 'VP9', 'H264', 'AV1'].filter((name) => names.includes(name));
}

function receivesCodec(name) {
  return RTCRtpReceiver.getCapabilities('video').codecs.some((c) => c.mimeType === 'video/' + name);
}

class Call {
  // send(message) takes signalling to rtcd. on has the callbacks state(text), rtt(ms),
  // track(mid, track), published() and pictures(), which tells that inbound videos came or went.
  // codec is the one to send videos in, or '' to let rtcd choose.
  constructor(send, on, codec) {
    this.send = send;
    this.on = on;
    this.codec = codec;
    this.closed = false;
    this.sends = false; // a track of ours has been negotiated
    this.mediaMap = new Map(); // mid -> {type, sender_id}
    this.tracks = new Map(); // mid -> track of a video; a section keeps its track
    this.camera = null; // the transceiver of our camera, once there was one
    this.screen = null; // the transceiver of our screen
    this.turn = Promise.resolve(); // the end of the queue of negotiations
    this.ended = new Promise((resolve) => { this.end = resolve; });
    this.early = []; // candidates that came before the first description
    this.work = Promise.resolve(); // the end of the queue of descriptions
    this.answered = null; // resolves what waits for the answer to our offer
    this.granted = null; // resolves what waits for the answer to a lock request
    this.pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    this.pc.onicecandidate = (e) => {
      if (e.candidate && e.candidate.candidate) this.send({ type: 'ice', data: e.candidate.toJSON() });
    };
    this.pc.onconnectionstatechange = () => this.on.state(this.pc.connectionState);
    this.pc.ontrack = (e) => {
      if (e.track.kind !== 'video') return this.on.track(e.transceiver.mid, e.track);
      this.tracks.set(e.transceiver.mid, e.track);
      this.on.pictures();
    };
    this.dc = this.pc.createDataChannel('calls-dc');
    this.dc.binaryType = 'arraybuffer';
    this.dc.onmessage = (e) => this.received(e.data);
    this.dc.onopen = () => {
      this.ping();
      this.pinger = setInterval(() => this.ping(), 1000);
    };
    this.dc.onclose = () => this.on.state('closed');
  }

  // start makes the first offer, which holds the data channel alone. It needs no lock.
  async start() {
    await this.pc.setLocalDescription(await this.pc.createOffer());
    this.send({ type: 'sdp', data: this.pc.localDescription.toJSON() });
  }

  close() {
    this.closed = true;
    this.end();
    clearInterval(this.pinger);
    this.pc.onconnectionstatechange = this.dc.onclose = null;
    this.dc.close();
    this.pc.close();
    if (this.answered) this.answered(false);
    if (this.granted) this.granted(false);
  }

  // publish sends a voice.
  async publish(track, stream) {
    if (!(await this.negotiate(() => this.pc.addTrack(track, stream)))) return;
    this.sends = true;
    this.on.published();
  }

  // setCamera sends a track as the camera, or nothing. Only the first one is negotiated.
  async setCamera(track, stream) {
    if (this.camera) return this.camera.sender.replaceTrack(track);
    if (!track) return;
    const { width, height } = track.getSettings();
    const layers = width * height < smallCamera ? smallCameraLayers : cameraLayers;
    await this.negotiate(() => { this.camera = this.addVideo(track, stream, layers); });
  }

  // setScreen sends a track as the screen, which has been announced, or ends that.
  async setScreen(track, stream) {
    await this.negotiate(() => {
      if (this.screen) this.pc.removeTrack(this.screen.sender);
      this.screen = track ? this.addVideo(track, stream, screenLayers) : null;
    });
  }

  addVideo(track, stream, sendEncodings) {
    // rtcd may send in our sections, too, but not in one that is bound to a codec.
    const transceiver = this.pc.addTransceiver(track, {
      direction: this.codec ? 'sendonly' : 'sendrecv', streams: [stream], sendEncodings,
    });
    if (this.codec) {
      const wanted = ['video/' + this.codec, 'video/rtx'];
      const { codecs } = RTCRtpReceiver.getCapabilities('video');
      transceiver.setCodecPreferences(codecs.filter((c) => wanted.includes(c.mimeType)));
    }
    return transceiver;
  }

  // negotiate makes a change and offers it, one change after the other. It reports whether that
  // came to be before the call ended.
  negotiate(change) {
    const done = this.turn.then(() => this.offer(change));
    this.turn = done.catch(() => {});
    return done;
  }

  // offer holds the lock while it negotiates, so that rtcd does not offer meanwhile, and tries
  // again until it works or the call ends.
  async offer(change) {
    await Promise.race([this.opened(), this.ended]);
    if (this.closed) return false;
    change();
    while (!this.closed) {
      if (!(await this.lock())) continue;
      let done = false;
      try {
        const answer = new Promise((resolve) => { this.answered = resolve; });
        const timer = setTimeout(() => this.answered && this.answered(false), answerTimeout);
        await this.pc.setLocalDescription(await this.pc.createOffer());
        this.send({ type: 'sdp', data: this.pc.localDescription.toJSON() });
        done = await answer;
        clearTimeout(timer);
      } catch (err) {
        console.warn('offer', err);
      } finally {
        this.answered = null;
        this.tell(DC.unlock);
      }
      if (done) return true;
      if (!this.closed && this.pc.signalingState === 'have-local-offer') {
        await this.pc.setLocalDescription({ type: 'rollback' });
      }
    }
    return false;
  }

  opened() {
    if (this.dc.readyState === 'open') return Promise.resolve();
    return new Promise((resolve) => this.dc.addEventListener('open', resolve, { once: true }));
  }

  // lock asks once for the lock and waits a moment if it was refused.
  async lock() {
    const got = await new Promise((resolve) => {
      this.granted = resolve;
      setTimeout(() => resolve(false), answerTimeout);
      this.tell(DC.lock);
    });
    this.granted = null;
    if (!got) await new Promise((resolve) => setTimeout(resolve, lockRetry));
    return got && !this.closed;
  }

  // signal takes what came from rtcd over the WebSocket, in order.
  signal(kind, data) {
    if (kind === 'sdp') {
      this.work = this.work.then(() => this.description(data)).catch((err) => console.warn('description', err));
    } else if (data.candidate) {
      this.work = this.work.then(() => this.candidate(data.candidate)).catch((err) => console.warn('candidate', err));
    }
  }

  async description(d) {
    if (this.closed) return;
    if (d.type === 'answer') {
      if (this.pc.signalingState !== 'have-local-offer') return; // nobody asked
      await this.pc.setRemoteDescription(d);
      if (this.answered) this.answered(true);
    } else if (d.type === 'offer') {
      // An offer of ours that is under way gives way to this one, and is made again.
      const ours = this.pc.signalingState === 'have-local-offer';
      await this.pc.setRemoteDescription(d);
      await this.pc.setLocalDescription(await this.pc.createAnswer());
      this.send({ type: 'sdp', data: this.pc.localDescription.toJSON() });
      if (ours && this.answered) this.answered(false);
    }
    for (const c of this.early.splice(0)) await this.pc.addIceCandidate(c);
  }

  async candidate(c) {
    if (this.closed) return;
    if (this.pc.remoteDescription) await this.pc.addIceCandidate(c);
    else if (this.early.length < 64) this.early.push(c);
  }

  ping() {
    this.pingedAt = this.pingedAt || performance.now();
    this.tell(DC.ping);
  }

  tell(type) {
    if (this.dc.readyState === 'open') this.dc.send(new Uint8Array([type]));
  }

  // received handles a message of the data channel. What makes no sense is dropped.
  received(data) {
    if (!(data instanceof ArrayBuffer)) return;
    let type, payload;
    try {
      [type, payload] = msgpack.decode(data);
    } catch {
      return;
    }
    if (type === DC.pong && this.pingedAt) {
      this.on.rtt(performance.now() - this.pingedAt);
      this.pingedAt = 0;
    } else if (type === DC.lock && this.granted) {
      this.granted(payload === true);
    } else if (type === DC.mediaMap && payload instanceof Map) {
      this.mediaMap = payload;
      this.on.pictures();
    }
  }

  // inbound returns what arrives, by media section.
  async inbound() {
    const streams = [];
    for (const s of (await this.pc.getStats()).values()) {
      if (s.type !== 'inbound-rtp' || s.kind !== 'audio') continue;
      const source = this.mediaMap.get(s.mid);
      streams.push({
        mid: s.mid,
        sender: source instanceof Map ? source.get('sender_id') : undefined,
        packetsReceived: s.packetsReceived,
        totalAudioEnergy: s.totalAudioEnergy,
        totalSamplesReceived: s.totalSamplesReceived,
      });
    }
    return streams;
  }

  // pictures returns the videos that the media map lists and whose track has come, and those that
  // do not come because this browser takes none of their codecs. The map and the offer it belongs
  // to take different ways, so either may be first.
  pictures() {
    const list = [];
    for (const [mid, source] of this.mediaMap) {
      const type = source instanceof Map ? source.get('type') : '';
      if (type !== 'video' && type !== 'screen') continue;
      const track = this.tracks.get(mid);
      const unsupported = String(source.get('unsupported') || '').replace('video/', '');
      if (track || unsupported) list.push({ mid, type, sender: source.get('sender_id'), track, unsupported });
    }
    return list;
  }

  // inboundVideo returns what is known of each of the pictures.
  async inboundVideo() {
    const all = await this.pc.getStats();
    const byMid = new Map();
    for (const s of all.values()) if (s.type === 'inbound-rtp' && s.kind === 'video') byMid.set(s.mid, s);
    return this.pictures().filter((p) => p.track).map(({ mid, type, sender }) => {
      const s = byMid.get(mid) || {};
      const codec = all.get(s.codecId);
      return {
        mid, type, sender,
        framesDecoded: s.framesDecoded || 0, width: s.frameWidth || 0, height: s.frameHeight || 0,
        fps: s.framesPerSecond || 0, codec: codec ? codec.mimeType.replace('video/', '') : '',
        bytes: s.bytesReceived || 0, packets: s.packetsReceived || 0, lost: s.packetsLost || 0,
      };
    });
  }

  // outboundVideo returns what is known of each layer of our camera and screen, best first.
  async outboundVideo() {
    const all = await this.pc.getStats();
    const list = [];
    for (const [type, transceiver, layers] of [['video', this.camera, cameraLayers], ['screen', this.screen, screenLayers]]) {
      if (!transceiver || !transceiver.sender.track) continue;
      for (const s of all.values()) {
        if (s.type !== 'outbound-rtp' || s.mid !== transceiver.mid) continue;
        const codec = all.get(s.codecId);
        const rank = layers.findIndex((layer) => layer.rid === s.rid);
        list.push({
          type, rank, rid: s.rid || '', width: s.frameWidth || 0, height: s.frameHeight || 0, fps: s.framesPerSecond || 0,
          codec: codec ? codec.mimeType.replace('video/', '') : '', bytes: s.bytesSent || 0,
          active: s.active !== false, limited: s.qualityLimitationReason || 'none',
          maxFPS: rank < 0 ? 0 : layers[rank].maxFramerate || 0,
        });
      }
    }
    return list.sort((a, b) => b.rank - a.rank);
  }
}
