#!/usr/bin/env bash
# Packets per second per core that a relay forwards: vine beside coturn and Nebula's relay, in one run under one load.
#
#   bash scripts/relay-bench.sh [-r ROUNDS] [-t SECONDS] [-o PACKETS_PER_SECOND] [-s BYTES] [RELAY...]
#
# RELAY is vine, coturn or nebula; all three unless told. Each round sets up every one of them anew: hosts a and b on a bridge
# that drops what they send each other directly, and r, which relays. a offers datagrams of -s bytes (default 1000) at a rate
# (default 20,000), addressed to b. Counted are the packets that come to b's link, where each costs the same whoever sent it:
# no link takes more than one packet at a time, so nobody gains by what only virtual links can do. CPU is the time that the
# relay's threads ran, from /proc. Figures are of what was forwarded per second of the relay's CPU, the median of the rounds;
# "forwarded" is the share of the offered datagrams.
#
# Needs root. coturn and nebula are Debian packages and are installed where they are missing.
set -uo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin

rounds=3 seconds=10 rate=20000 size=1000
while getopts r:t:o:s: option; do
  case $option in r) rounds=$OPTARG ;; t) seconds=$OPTARG ;; o) rate=$OPTARG ;; s) size=$OPTARG ;; *) sed -n '2,14p' "$0"; exit 2 ;; esac
done
shift $((OPTIND - 1))
relays=("$@")
[ ${#relays[@]} -gt 0 ] || relays=(vine coturn nebula)
fail() { echo "relay-bench.sh: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "network namespaces need root"

packages=()
need() { command -v "$1" >/dev/null || packages+=("$2"); }
need ip iproute2; need nft nftables; need ping iputils-ping; need taskset util-linux
case " ${relays[*]} " in *" coturn "*) need turnserver coturn ;; esac
case " ${relays[*]} " in *" nebula "*) need nebula nebula ;; esac
if [ ${#packages[@]} -gt 0 ]; then
  echo "relay-bench.sh: installing ${packages[*]}"
  { apt-get -o Acquire::Check-Valid-Until=false update -qq &&
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null; } ||
    fail "apt-get could not install all of: ${packages[*]}"
fi
bins=(--bin relay-load)
[ -n "${VINE_BIN:-}" ] || bins+=(--bin vine)
cargo build --quiet --release --locked -p vine-cli -p vine-tests "${bins[@]}" || exit 1
target_dir=$(realpath "${CARGO_TARGET_DIR:-target}")
vine=${VINE_BIN:-$target_dir/release/vine} load=$target_dir/release/relay-load

work=$(mktemp -d) pids=() relay_pid=
# What runs in the namespaces goes with them, also where another shell of this script started it.
down() {
  local pid name
  for name in a b r; do
    for pid in $(ip netns pids "vine-rb-$name" 2>/dev/null); do kill -KILL "$pid" 2>/dev/null; done
  done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null; done
  pids=()
  for name in a b r sw; do ip netns del "vine-rb-$name" 2>/dev/null; done
}
trap 'down; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# The relay has the last core to itself.
last_core=$(($(nproc) - 1))
other_cores=$([ "$last_core" -gt 0 ] && echo "0-$((last_core - 1))" || echo 0)
taskset -pc "$other_cores" $$ >/dev/null
inside() { local name=vine-rb-$1; shift; ip netns exec "$name" "$@"; }
start() { # HOST LABEL COMMAND...
  local host=$1 label=$2
  shift 2
  ip netns exec "vine-rb-$host" "$@" >"$work/$label.log" 2>&1 </dev/null &
  pids+=($!)
}
start_relay() { start r relay taskset -c "$last_core" "$@"; relay_pid=${pids[-1]}; }

up() { # a .1, b .2, r .3 of 192.0.2.0/24
  local name number=1
  for name in sw a b r; do ip netns add "vine-rb-$name" || fail "vine-rb-$name is there already; does this run twice?"; ip -n "vine-rb-$name" link set lo up; done
  ip -n vine-rb-sw link add br0 type bridge
  ip -n vine-rb-sw link set br0 up
  for name in a b r; do
    ip link add eth0 netns "vine-rb-$name" type veth peer name "$name" netns vine-rb-sw
    ip -n "vine-rb-$name" link set dev eth0 gso_max_segs 1 up
    ip -n vine-rb-sw link set dev "$name" gso_max_segs 1 master br0 up
    ip -n "vine-rb-$name" addr add "192.0.2.$number/24" dev eth0
    number=$((number + 1))
  done
  inside sw nft -f - <<'NFT' || fail "nft cannot drop what enters a bridge"
table netdev parted {
  chain c { type filter hook ingress devices = { a, b } priority 0;
    ip saddr 192.0.2.1 ip daddr 192.0.2.2 drop
    ip saddr 192.0.2.2 ip daddr 192.0.2.1 drop
  }
}
NFT
}

# Each up_RELAY starts the relay and what it relays for, and sets `target` (where b takes datagrams) and `how`, the words of
# relay-load that send there.

up_coturn() {
  start_relay turnserver -n -z -m 1 -L 192.0.2.3 -E 192.0.2.3 --no-tls --no-dtls --no-cli --log-file stdout --pidfile "$work/turn.pid" \
    --userdb "$work/turn.db"
  target=192.0.2.2:9000 how=(turn 192.0.2.3:3478 $target)
}

up_nebula() {
  local name number=1
  mkdir -p "$work/nebula"
  (
    cd "$work/nebula" && nebula-cert ca -name bench &&
      for name in a b r; do nebula-cert sign -name $name -ip "10.42.0.$number/24" && number=$((number + 1)); done
  ) >/dev/null || return 1
  for name in a b r; do
    cat >"$work/nebula/$name.yml" <<YML
pki: {ca: $work/nebula/ca.crt, cert: $work/nebula/$name.crt, key: $work/nebula/$name.key}
listen: {host: 0.0.0.0, port: 4242, read_buffer: 4194304, write_buffer: 4194304}
tun: {dev: neb0, mtu: 1300, tx_queue: 500}
logging: {level: warning, format: text}
firewall:
  outbound: [{port: any, proto: any, host: any}]
  inbound: [{port: any, proto: any, host: any}]
YML
    case $name in
      r) echo "lighthouse: {am_lighthouse: true}
relay: {am_relay: true, use_relays: false}" ;;
      *) echo "static_host_map: {'10.42.0.3': ['192.0.2.3:4242']}
lighthouse: {am_lighthouse: false, hosts: ['10.42.0.3']}
relay: {relays: ['10.42.0.3'], use_relays: true}" ;;
    esac >>"$work/nebula/$name.yml"
  done
  start_relay nebula -config "$work/nebula/r.yml"
  start a a nebula -config "$work/nebula/a.yml"
  start b b nebula -config "$work/nebula/b.yml"
  target=10.42.0.2:9000 how=(send $target)
}

up_vine() {
  local name peer
  local -A id number=([a]=1 [b]=2 [r]=3)
  for name in a b r; do
    mkdir -m 700 "$work/$name" && "$vine" identity init --path "$work/$name/identity" >/dev/null || return 1
    id[$name]=$("$vine" identity export-public --path "$work/$name/identity")
  done
  for name in a b r; do
    {
      printf '[node]\nname = "%s"\nnetwork_id = "bench"\nidentity_path = "%s"\nstate_dir = "%s"\nlisten = ["udp://0.0.0.0:4100"]\n' \
        $name "$work/$name/identity" "$work/$name"
      printf '[tun]\nname = "vine0"\naddresses = ["10.42.%s.1/24"]\nmtu = 1300\n' "${number[$name]}"
      [ $name = r ] || printf '[[bootstrap_peers]]\npeer_id = "%s"\naddress = "udp://192.0.2.3:4100"\n' "${id[r]}"
      for peer in a b r; do
        [ $peer = $name ] || printf '[[allowed_peers]]\nname = "%s"\npeer_id = "%s"\nprefixes = ["10.42.%s.0/24"]\nrelay_capable = %s\n' \
          $peer "${id[$peer]}" "${number[$peer]}" "$([ $peer = r ] && echo true || echo false)"
      done
    } >"$work/$name/vine.toml"
    chmod 600 "$work/$name/vine.toml"
  done
  start_relay "$vine" up -c "$work/r/vine.toml"
  start a a "$vine" up -c "$work/a/vine.toml"
  start b b "$vine" up -c "$work/b/vine.toml"
  target=10.42.2.1:9000 how=(send $target)
}

# Until a reaches b's address, for 20 s. A TURN target is reached once the load has an allocation.
reachable() {
  local end=$((SECONDS + 20))
  [ "${how[0]}" = turn ] && { sleep 1; return; }
  while [ $SECONDS -lt $end ]; do inside a ping -q -c1 -W0.5 "${target%:*}" >/dev/null 2>&1 && return; sleep 0.1; done
  return 1
}
# Nanoseconds that the threads of the relay have run.
cpu() { cat /proc/"$relay_pid"/task/*/schedstat | awk '{ n += $1 } END { printf "%.0f", n }'; }
packets() { inside b cat /sys/class/net/eth0/statistics/rx_packets; }

measure() { # RELAY: prints packets per second of CPU, per cent forwarded, per cent of a core
  local relay=$1 target how sink c0 c1 p0 p1 sent
  rm -rf "${work:?}"/*
  up
  "up_$relay" && reachable || { echo "relay-bench.sh: $relay does not relay here:" >&2; tail -n 3 "$work"/*.log >&2; down; return 1; }
  start b sink "$load" sink "$target" $((seconds + 4))
  sink=${pids[-1]}
  inside a "$load" "${how[@]}" "$rate" 1 "$size" >/dev/null # what is set up at first is not measured
  c0=$(cpu) p0=$(packets)
  sent=$(inside a "$load" "${how[@]}" "$rate" "$seconds" "$size" | awk 'END { print $1 }')
  sleep 0.2
  c1=$(cpu) p1=$(packets)
  wait "$sink"
  down
  awk -v c=$((c1 - c0)) -v p=$((p1 - p0)) -v sent="$sent" -v t="$seconds" \
    'BEGIN { if (c > 0 && sent > 0) printf "%.0f %.1f %.1f\n", p / c * 1e9, 100 * p / sent, c / t / 1e7; else exit 1 }'
}

echo "offered: $rate datagrams of $size bytes a second for $seconds s, $rounds rounds; the relay alone on core $last_core"
: >"$work.results"
trap 'down; rm -rf "$work" "$work.results"' EXIT
for ((round = 1; round <= rounds; round++)); do
  for relay in "${relays[@]}"; do
    if line=$(measure "$relay"); then
      read -r per_core forwarded busy <<<"$line"
      printf 'round %d  %-7s %8d packets/s per core  %5.1f%% forwarded  %5.1f%% of a core\n' $round "$relay" "$per_core" "$forwarded" "$busy"
      echo "$relay $per_core $forwarded" >>"$work.results"
    fi
  done
done
median() { awk -v relay="$1" '$1 == relay { print $2 }' "$work.results" | sort -n | awk '{ a[NR] = $1 } END { print NR ? a[int((NR + 1) / 2)] : 0 }'; }
echo
status=0 ours=$(median vine)
for relay in "${relays[@]}"; do
  theirs=$(median "$relay")
  if [ "$theirs" = 0 ]; then
    echo "$relay: nothing measured"; status=1
  elif [ "$relay" = vine ] || [ "$ours" = 0 ]; then
    printf '%-7s %8d packets/s per core\n' "$relay" "$theirs"
  else
    awk -v r="$relay" -v p="$theirs" -v o="$ours" 'BEGIN { printf "%-7s %8d packets/s per core; vine forwards %.2f times as many\n", r, p, o / p }'
    [ "$ours" -ge "$theirs" ] || status=1
  fi
done
exit $status
