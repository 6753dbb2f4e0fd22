<?xml version="1.0"?>
<!--
SPDX-License-Identifier: BSD-3-Clause

For a libvirt that does not know <tmem>: makes <qemu:commandline> of each.

  xsltproc tmem-to-commandline.xsl vm1.xml | virsh define /dev/stdin

Of what <tmem> has, this leaves out <address>: libvirt does not know of the device, so it
cannot give it one.  It gets the slots from 0x18 on of the bus pcie.0, or pci.0 of machine pc
(parameters "bus" and "slot"), which libvirt itself takes last.  What QEMU would take for another
option, or for another value, ends it with a line; what QEMU refuses itself is found when the
domain is started.  What needs libvirt's help is up to you: live changes (virsh
qemu-monitor-command), the room in hard_limit, access to sockets, and that the back end of a
source with reconnect listens: QEMU waits for it.
-->
<xsl:stylesheet version="1.0"
                xmlns:xsl="http://www.w3.org/1999/XSL/Transform"
                xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0">
  <xsl:output method="xml" indent="yes" omit-xml-declaration="yes"/>
  <xsl:strip-space elements="domain devices"/>
  <xsl:param name="bus">
    <xsl:variable name="machine" select="/domain/os/type/@machine"/>
    <xsl:choose>
      <xsl:when test="starts-with($machine, 'pc') and not(contains($machine, 'q35'))">pci.0</xsl:when>
      <xsl:otherwise>pcie.0</xsl:otherwise>
    </xsl:choose>
  </xsl:param>
  <xsl:param name="slot" select="24"/>

  <xsl:template match="@*|node()">
    <xsl:copy>
      <xsl:apply-templates select="@*|node()"/>
    </xsl:copy>
  </xsl:template>

  <xsl:template match="/domain/devices/tmem"/>

  <xsl:template match="/domain[devices/tmem]">
    <domain xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0">
      <xsl:apply-templates select="@*|node()[not(self::qemu:commandline)]"/>
      <qemu:commandline>
        <xsl:apply-templates select="qemu:commandline/node()"/>
        <xsl:apply-templates select="devices/tmem" mode="arguments"/>
      </qemu:commandline>
    </domain>
  </xsl:template>

  <xsl:template match="tmem" mode="arguments">
    <xsl:variable name="number" select="count(preceding-sibling::tmem)"/>
    <xsl:variable name="id">
      <xsl:choose>
        <xsl:when test="alias/@name"><xsl:value-of select="alias/@name"/></xsl:when>
        <xsl:otherwise><xsl:value-of select="concat('tmem', $number)"/></xsl:otherwise>
      </xsl:choose>
    </xsl:variable>
    <xsl:variable name="driver">
      <xsl:if test="driver/@fast_queues">,num-fast-queues=<xsl:value-of select="driver/@fast_queues"/></xsl:if>
      <xsl:if test="driver/@queues">,num-bulk-queues=<xsl:value-of select="driver/@queues"/></xsl:if>
      <xsl:if test="driver/@iothread">,iothread=iothread<xsl:value-of select="driver/@iothread"/></xsl:if>
      <xsl:if test="driver/@iommu">,iommu_platform=<xsl:value-of select="driver/@iommu"/></xsl:if>
      <xsl:if test="driver/@ats">,ats=<xsl:value-of select="driver/@ats"/></xsl:if>
      <xsl:if test="driver/@packed">,packed=<xsl:value-of select="driver/@packed"/></xsl:if>
      <xsl:if test="driver/@page_per_vq">,page-per-vq=<xsl:value-of select="driver/@page_per_vq"/></xsl:if>
    </xsl:variable>
    <xsl:variable name="here" select="$slot + $number"/>
    <xsl:call-template name="check"/>
    <xsl:if test="$here &gt; 30">
      <xsl:message terminate="yes">no slot is left for tmem number <xsl:value-of select="$number + 1"/>: give a smaller one by --param slot N</xsl:message>
    </xsl:if>
    <xsl:variable name="place" select="concat(',bus=', $bus, ',addr=0x', floor($here div 16),
                                              substring('0123456789abcdef', $here mod 16 + 1, 1))"/>
    <xsl:choose>
      <xsl:when test="source">
        <qemu:arg value="-chardev"/>
        <qemu:arg>
          <xsl:attribute name="value">
            <xsl:value-of select="concat('socket,id=char', $id, ',path=')"/>
            <xsl:call-template name="commas">
              <xsl:with-param name="text" select="source/@path"/>
            </xsl:call-template>
            <xsl:if test="source/reconnect/@enabled = 'yes'">
              <xsl:value-of select="concat(',reconnect-ms=', 1000 * source/reconnect/@timeout)"/>
            </xsl:if>
          </xsl:attribute>
        </qemu:arg>
        <qemu:arg value="-device"/>
        <qemu:arg value="{concat('vhost-user-tmem-pci,id=', $id, ',chardev=char', $id, $driver, $place)}"/>
      </xsl:when>
      <xsl:otherwise>
        <qemu:arg value="-object"/>
        <qemu:arg>
          <xsl:attribute name="value">
            <xsl:value-of select="concat('tmem-store,id=obj', $id)"/>
            <xsl:call-template name="size">
              <xsl:with-param name="option" select="'size'"/>
              <xsl:with-param name="value" select="size"/>
              <xsl:with-param name="unit" select="size/@unit"/>
            </xsl:call-template>
            <xsl:call-template name="size">
              <xsl:with-param name="option" select="'reserved'"/>
              <xsl:with-param name="value" select="reserved"/>
              <xsl:with-param name="unit" select="reserved/@unit"/>
            </xsl:call-template>
            <xsl:call-template name="size">
              <xsl:with-param name="option" select="'persistent-max'"/>
              <xsl:with-param name="value" select="limits/@persistent"/>
              <xsl:with-param name="unit" select="limits/@unit"/>
            </xsl:call-template>
            <xsl:call-template name="size">
              <xsl:with-param name="option" select="'ephemeral-max'"/>
              <xsl:with-param name="value" select="limits/@ephemeral"/>
              <xsl:with-param name="unit" select="limits/@unit"/>
            </xsl:call-template>
            <xsl:call-template name="size">
              <xsl:with-param name="option" select="'cgroup-headroom'"/>
              <xsl:with-param name="value" select="headroom/@cgroup"/>
              <xsl:with-param name="unit" select="headroom/@unit"/>
            </xsl:call-template>
            <xsl:call-template name="size">
              <xsl:with-param name="option" select="'host-headroom'"/>
              <xsl:with-param name="value" select="headroom/@host"/>
              <xsl:with-param name="unit" select="headroom/@unit"/>
            </xsl:call-template>
            <xsl:if test="compression/@recompress">,recompress=<xsl:value-of select="compression/@recompress"/></xsl:if>
            <xsl:if test="compression/@after">,recompress-after=<xsl:value-of select="compression/@after"/></xsl:if>
            <xsl:if test="locked">,lock=on</xsl:if>
            <xsl:if test="lease">
              <xsl:text>,lease=</xsl:text>
              <xsl:call-template name="commas">
                <xsl:with-param name="text" select="lease/@path"/>
              </xsl:call-template>
              <xsl:call-template name="lease-name">
                <xsl:with-param name="suffix">
                  <xsl:if test="preceding-sibling::tmem[lease]">:<xsl:value-of select="$id"/></xsl:if>
                </xsl:with-param>
              </xsl:call-template>
            </xsl:if>
            <xsl:if test="weight">,weight=<xsl:value-of select="normalize-space(weight)"/></xsl:if>
          </xsl:attribute>
        </qemu:arg>
        <qemu:arg value="-device"/>
        <qemu:arg value="{concat('virtio-tmem-pci,id=', $id, ',store=obj', $id, $driver, $place)}"/>
      </xsl:otherwise>
    </xsl:choose>
  </xsl:template>

  <!-- What goes into arguments as it is has no comma, and what libvirt would refuse is none. -->
  <xsl:template name="check">
    <xsl:for-each select="driver/@queues | driver/@fast_queues | driver/@iothread | weight |
                          compression/@recompress | compression/@after | source/reconnect/@timeout">
      <xsl:if test="normalize-space(.) = '' or translate(normalize-space(.), '0123456789', '') != ''">
        <xsl:message terminate="yes"><xsl:value-of select="name()"/> of tmem is '<xsl:value-of select="."/>': must be a number</xsl:message>
      </xsl:if>
      <xsl:if test=". = 0 and name() != 'fast_queues'">
        <xsl:message terminate="yes"><xsl:value-of select="name()"/> of tmem must not be 0</xsl:message>
      </xsl:if>
    </xsl:for-each>
    <xsl:for-each select="driver/@iommu | driver/@ats | driver/@packed | driver/@page_per_vq">
      <xsl:if test=". != 'on' and . != 'off'">
        <xsl:message terminate="yes"><xsl:value-of select="name()"/> of tmem is '<xsl:value-of select="."/>': must be on or off</xsl:message>
      </xsl:if>
    </xsl:for-each>
    <xsl:if test="translate(alias/@name, 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-', '') != ''">
      <xsl:message terminate="yes">the alias '<xsl:value-of select="alias/@name"/>' of tmem: must have A-Z a-z 0-9 _ - alone</xsl:message>
    </xsl:if>
    <xsl:if test="@model != 'virtio' or compression/@type != 'lz4'">
      <xsl:message terminate="yes">tmem has model='virtio' and compression type='lz4', and no others</xsl:message>
    </xsl:if>
    <xsl:if test="boolean(source) = boolean(size)">
      <xsl:message terminate="yes">tmem has a size, or else a source</xsl:message>
    </xsl:if>
    <xsl:if test="source and (source/@type != 'unix' or not(source/@type))">
      <xsl:message terminate="yes">the type of a source of tmem must be 'unix'</xsl:message>
    </xsl:if>
    <xsl:if test="source and (reserved or limits or headroom or compression or locked or lease or weight)">
      <xsl:message terminate="yes">the store of a tmem with a source is configured at its back end: no reserved, limits, headroom, compression, locked, lease, weight</xsl:message>
    </xsl:if>
    <xsl:if test="source/reconnect and not(source/reconnect[@enabled = 'no'] or source/reconnect[@enabled = 'yes' and @timeout])">
      <xsl:message terminate="yes">reconnect of tmem must be enabled='yes' with a timeout, or enabled='no'</xsl:message>
    </xsl:if>
    <xsl:for-each select="source | lease">
      <xsl:if test="not(starts-with(@path, '/')) or string-length(@path) &gt; 107">
        <xsl:message terminate="yes"><xsl:value-of select="name()"/> path of tmem is '<xsl:value-of select="@path"/>': must be absolute, of at most 107 bytes</xsl:message>
      </xsl:if>
    </xsl:for-each>
    <xsl:if test="weight and not(lease)">
      <xsl:message terminate="yes">weight of tmem needs a lease</xsl:message>
    </xsl:if>
  </xsl:template>

  <!-- ,lease-name=: what the broker knows the store by.  It is the domain's name, with the alias
       of further devices behind a colon; its UUID if the broker would not take that, or could
       take it for the UUID of another domain. -->
  <xsl:template name="lease-name">
    <xsl:param name="suffix"/>
    <xsl:variable name="name" select="string(/domain/name)"/>
    <xsl:variable name="hex" select="translate(/domain/uuid, 'ABCDEF- &#9;&#10;', 'abcdef')"/>
    <xsl:variable name="uuid" select="concat(substring($hex, 1, 8), '-', substring($hex, 9, 4), '-',
                                             substring($hex, 13, 4), '-', substring($hex, 17, 4), '-',
                                             substring($hex, 21))"/>
    <xsl:variable name="digits" select="translate($name, '-', '')"/>
    <xsl:variable name="domain">
      <xsl:choose>
        <xsl:when test="translate($name, 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-', '') = ''
                        and string-length($name) + string-length($suffix) &lt;= 63
                        and not(string-length($digits) = 32
                                and translate($digits, '0123456789abcdefABCDEF', '') = '')">
          <xsl:value-of select="$name"/>
        </xsl:when>
        <xsl:when test="string-length($hex) = 32"><xsl:value-of select="$uuid"/></xsl:when>
        <xsl:otherwise>
          <xsl:message terminate="yes">the name '<xsl:value-of select="$name"/>' is none for a broker: the domain needs its uuid</xsl:message>
        </xsl:otherwise>
      </xsl:choose>
    </xsl:variable>
    <xsl:if test="string-length($domain) + string-length($suffix) &gt; 63">
      <xsl:message terminate="yes">the alias '<xsl:value-of select="substring($suffix, 2)"/>' of tmem with a lease must have at most 26 characters</xsl:message>
    </xsl:if>
    <xsl:value-of select="concat(',lease-name=', $domain, $suffix)"/>
  </xsl:template>

  <!-- ,option=BYTES, rounded up to KiB as libvirt does, or nothing -->
  <xsl:template name="size">
    <xsl:param name="option"/>
    <xsl:param name="value"/>
    <xsl:param name="unit"/>
    <xsl:if test="$value">
      <xsl:variable name="upper" select="translate($unit, 'abegikmsty', 'ABEGIKMSTY')"/>
      <xsl:variable name="factor">
        <xsl:choose>
          <xsl:when test="$upper = '' or $upper = 'KIB' or $upper = 'K'">1024</xsl:when>
          <xsl:when test="$upper = 'B' or $upper = 'BYTE' or $upper = 'BYTES'">1</xsl:when>
          <xsl:when test="$upper = 'KB'">1000</xsl:when>
          <xsl:when test="$upper = 'MIB' or $upper = 'M'">1048576</xsl:when>
          <xsl:when test="$upper = 'MB'">1000000</xsl:when>
          <xsl:when test="$upper = 'GIB' or $upper = 'G'">1073741824</xsl:when>
          <xsl:when test="$upper = 'GB'">1000000000</xsl:when>
          <xsl:when test="$upper = 'TIB' or $upper = 'T'">1099511627776</xsl:when>
          <xsl:when test="$upper = 'TB'">1000000000000</xsl:when>
          <xsl:otherwise>
            <xsl:message terminate="yes">unknown unit '<xsl:value-of select="$unit"/>' of <xsl:value-of select="$option"/> in tmem</xsl:message>
          </xsl:otherwise>
        </xsl:choose>
      </xsl:variable>
      <xsl:if test="normalize-space($value) = '' or translate(normalize-space($value), '0123456789', '') != ''">
        <xsl:message terminate="yes"><xsl:value-of select="$option"/> of tmem is '<xsl:value-of select="$value"/>': must be a number</xsl:message>
      </xsl:if>
      <xsl:if test="$value = 0 and $option != 'reserved'">
        <xsl:message terminate="yes"><xsl:value-of select="$option"/> of tmem must not be 0</xsl:message>
      </xsl:if>
      <xsl:value-of select="concat(',', $option, '=', format-number(ceiling($value * $factor div 1024) * 1024, '0'))"/>
    </xsl:if>
  </xsl:template>

  <!-- QEMU wants a comma in a value twice -->
  <xsl:template name="commas">
    <xsl:param name="text"/>
    <xsl:choose>
      <xsl:when test="contains($text, ',')">
        <xsl:value-of select="concat(substring-before($text, ','), ',,')"/>
        <xsl:call-template name="commas">
          <xsl:with-param name="text" select="substring-after($text, ',')"/>
        </xsl:call-template>
      </xsl:when>
      <xsl:otherwise><xsl:value-of select="$text"/></xsl:otherwise>
    </xsl:choose>
  </xsl:template>
</xsl:stylesheet>
