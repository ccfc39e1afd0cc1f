// A producer for Java 17 or newer, with nothing but the JDK (your usual client's XADD serves as well).
//
//   try (var contacts = new Producer("localhost", 6379, "contact-sync")) {
//     contacts.send(List.of(Map.of("owner", "1", "contact", "9", "op", "delete")));
//   }
import java.io.*;
import java.net.Socket;
import java.util.*;
import java.util.zip.CRC32;
import static java.nio.charset.StandardCharsets.UTF_8;

public class Producer implements AutoCloseable {
  private final Socket socket;
  private final InputStream in;
  private final String namespace;
  private long last; // stamps never go back, also where the machine's clock does

  public Producer(String host, int port, String namespace) throws IOException {
    this.socket = new Socket(host, port);
    this.socket.setSoTimeout(5_000);
    this.in = new BufferedInputStream(socket.getInputStream());
    this.namespace = namespace;
  }

  public static int partitionOf(String owner, int partitions) {
    var crc = new CRC32();
    crc.update(owner.getBytes(UTF_8));
    return (int) (crc.getValue() % partitions);
  }

  static void checkId(String name, Object id) {
    if (!(id instanceof String text) || text.isEmpty() || text.getBytes(UTF_8).length > 256
        || text.chars().anyMatch(c -> c < 0x20 || (c >= 0x7f && c < 0xa0)) || !UTF_8.newEncoder().canEncode(text))
      throw new IllegalArgumentException(name + " must be 1 to 256 bytes of UTF-8 without control characters");
  }

  /** The fields and values of the entry, in their order. */
  public static List<String> entryOf(Map<String, ?> change) {
    checkId("owner", change.get("owner"));
    checkId("contact", change.get("contact"));
    var op = change.get("op");
    if (!"upsert".equals(op) && !"delete".equals(op)) throw new IllegalArgumentException("op must be upsert or delete");
    if (!(change.get("at") instanceof Long at) || at < 1_000_000_000_000L)
      throw new IllegalArgumentException("at must be Unix milliseconds");
    var entry = new ArrayList<String>();
    for (var field : List.of("owner", "contact", "op", "at", "source", "traceparent"))
      if (change.get(field) != null) entry.addAll(List.of(field, change.get(field).toString()));
    return entry;
  }

  /** Appends the changes, in order and in one round trip; returns the ids of their entries. */
  public synchronized List<String> send(List<Map<String, ?>> changes) throws IOException {
    var entries = new ArrayList<List<String>>();
    for (var change : changes) {
      var stamped = new HashMap<String, Object>(Map.of("at", last = Math.max(last, System.currentTimeMillis())));
      stamped.putAll(change);
      entries.add(entryOf(stamped));
    }
    write(List.of("HGET", namespace + ":config", "partitions"));
    var recorded = reply();
    int partitions = recorded == null ? 64 : Integer.parseInt(recorded);
    var streams = new ArrayList<String>();
    for (var change : changes) streams.add(streamOf(change, partitions, namespace)); // before anything is written
    for (int i = 0; i < entries.size(); i++) {
      var command = new ArrayList<>(List.of("XADD", streams.get(i), "*"));
      command.addAll(entries.get(i));
      write(command);
    }
    var ids = new ArrayList<String>();
    IOException refused = null; // every reply is read, so that the next call finds its own
    for (int i = 0; i < entries.size(); i++) try { ids.add(reply()); } catch (IOException error) { refused = error; }
    if (refused != null) throw refused; // what was said may be said again: it carries its `at`
    return ids;
  }

  /** The key of the change's stream. Nobody waits for the changes of the lane "bulk"; without a lane, it is "live". */
  public static String streamOf(Map<String, ?> change, int partitions, String namespace) {
    var lane = change.get("lane") == null ? "live" : change.get("lane");
    if (!"live".equals(lane) && !"bulk".equals(lane)) throw new IllegalArgumentException("lane must be live or bulk");
    var name = "bulk".equals(lane) ? "bulk" : "events";
    return namespace + ":{" + partitionOf((String) change.get("owner"), partitions) + "}:" + name;
  }

  private void write(List<String> words) throws IOException {
    var packed = new ByteArrayOutputStream();
    packed.write(("*" + words.size() + "\r\n").getBytes(UTF_8));
    for (var word : words) {
      var bytes = word.getBytes(UTF_8);
      packed.write(("$" + bytes.length + "\r\n").getBytes(UTF_8));
      packed.write(bytes);
      packed.write("\r\n".getBytes(UTF_8));
    }
    socket.getOutputStream().write(packed.toByteArray());
  }

  private String reply() throws IOException {
    var line = new StringBuilder();
    for (int c; (c = in.read()) != '\n'; line.append((char) c)) if (c < 0) throw new EOFException("Redis is gone");
    var head = line.substring(1).trim();
    if (line.charAt(0) == '-') throw new IOException(head);
    if (line.charAt(0) != '$' || head.equals("-1")) return head.equals("-1") ? null : head;
    var bytes = in.readNBytes(Integer.parseInt(head) + 2);
    return new String(bytes, 0, bytes.length - 2, UTF_8);
  }

  @Override public void close() throws IOException { socket.close(); }
}
