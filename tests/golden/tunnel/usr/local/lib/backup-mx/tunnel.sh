#!/bin/sh
# Points the tunnel at where its other side lives now, unless they have spoken lately.
#
#   tunnel.sh PUBLIC-KEY HOST PORT [PUBLIC-KEY HOST PORT …]
#
# A line at home changes its address, and WireGuard looks a name up once only. It shakes hands every two
# minutes while both sides live, 145 s at most while nothing but keepalives pass: after 135 s the other one
# may be elsewhere, after 180 s it is gone (REJECT_AFTER_TIME).
status=0

# field NAME: what `wg show` has under that name for the peer $key.
field() {
    wg show backup-mx "$1" | while read -r peer value; do
        [ "$peer" = "$key" ] && echo "$value"
    done
}

# addresses: where $host is, the best first (RFC 6724), as wg writes endpoints.
addresses() {
    timeout 10 getent ahosts "$host" | while read -r address kind _; do
        case "$kind $address" in
            DGRAM*:*) echo "[$address]:$port" ;;
            DGRAM*) echo "$address:$port" ;;
        esac
    done
}

# after CURRENT ENDPOINT…: the one behind CURRENT, so that each of a name's addresses has its turn; else the first.
after() {
    current=$1 first=$2
    shift
    while [ $# -gt 1 ]; do
        [ "$1" = "$current" ] && first=$2
        shift
    done
    echo "$first"
}

while [ $# -ge 3 ]; do
    key=$1 host=$2 port=$3
    shift 3
    spoke=$(field latest-handshakes)
    ago=$(($(date +%s) - ${spoke:-0}))
    # Less than nothing: the clock was set back since.
    [ $ago -ge 0 ] && [ $ago -lt 135 ] && continue
    found=$(addresses)
    if [ -z "$found" ]; then
        echo "$host: no address is known for it now"
        status=1
        continue
    fi
    old=$(field endpoints)
    # It may live still, and another of the name's addresses may not.
    [ $ago -ge 0 ] && [ $ago -lt 180 ] && echo "$found" | grep -qxF "$old" && continue
    # Unquoted: one argument for each line.
    new=$(after "$old" $found)
    # From none to 25 s: the change has the tunnel dial at once.
    wg set backup-mx peer "$key" persistent-keepalive 0 &&
        wg set backup-mx peer "$key" endpoint "$new" persistent-keepalive 25 || status=1
    [ "$new" = "$old" ] || echo "$host: the tunnel dials $new, before that $old"
done
exit $status
